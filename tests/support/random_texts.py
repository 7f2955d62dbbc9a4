"""Random texts of a context-free grammar, drawn from its nodes: what it can produce, without any backend."""

from __future__ import annotations

import random

from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
)
from mlx_agent_llm.languages.regular import Language
from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_DEPTH = 60
_LIKELY = CharSet.of("abc019 \n\"'\\<>/{}[]:,=.()|é€😀")


class RandomTexts:
    """Draws texts of one grammar; after `calm` characters or MAX_DEPTH rules it takes the shortest way out."""

    def __init__(self, grammar: ContextFreeGrammar, rng: random.Random, calm: int = 40) -> None:
        self._grammar = grammar
        self._rng = rng
        self._calm = calm

    def draw(self) -> str:
        return self._node(self._grammar.root, 0)

    def _node(self, node: Node, depth: int) -> str:
        match node:
            case TextNode(value):
                return value
            case PatternNode(language):
                return self._text(language)
            case SequenceNode(parts):
                return "".join(self._node(part, depth) for part in parts)
            case ChoiceNode(options):
                return self._node(self._choose(options, depth), depth)
            case RepeatNode(item, least, most):
                longest = least + 2 if most is None else min(most, least + 2)
                return "".join(self._node(item, depth) for _ in range(self._rng.randint(least, longest)))
            case RuleNode(name):
                return self._node(self._grammar.rules[name], depth + 1)

    def _choose(self, options: tuple[Node, ...], depth: int) -> Node:
        return options[0] if depth > MAX_DEPTH else self._rng.choice(options)

    def _text(self, language: Language) -> str:
        text = ""
        limit = self._rng.randint(0, self._calm)
        while not (language.is_nullable and (len(text) >= limit or self._rng.random() < 0.1)):
            if len(text) >= limit:
                rest = language.shortest()
                assert rest is not None
                return text + rest
            options = [one for one in language.next_classes() if not language.derive(one.example()).is_empty()]
            if not options:
                break
            char = self._character(self._rng.choice(options))
            text, language = text + char, language.derive(char)
        return text

    def _character(self, chars: CharSet) -> str:
        likely = chars & _LIKELY
        low, high = self._rng.choice((likely if likely and self._rng.random() < 0.8 else chars).ranges)
        return chr(self._rng.randint(low, high))
