"""Random texts of a grammar, written from its root on: every option, repetition and character is drawn."""

from __future__ import annotations

import random

from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.languages.context_free import (
    ChoiceNode,
    ContextFreeGrammar,
    Node,
    PatternNode,
    RepeatNode,
    RuleNode,
    SequenceNode,
    TextNode,
    has_distinct,
)
from mlx_agent_llm.languages.context_free.shortest import ShortestTexts
from mlx_agent_llm.languages.regular import Language


class GrammarWalk:
    """Draws texts of one grammar; below `depth` rules within each other the shortest way out is taken."""

    def __init__(self, grammar: ContextFreeGrammar, depth: int = 25) -> None:
        self._grammar = grammar
        self._depth = depth
        self._shortest = ShortestTexts(grammar)
        self._reader = Pushdown(grammar) if has_distinct(grammar) else None

    def text(self, rng: random.Random) -> str:
        """Return a random text of the grammar; where items must differ it is drawn until they do."""
        text = self._draw(rng)
        while self._reader is not None and not self._reader.accepts(text):
            text = self._draw(rng)
        return text

    def _draw(self, rng: random.Random) -> str:
        written: list[str] = []
        left: list[tuple[Node, int]] = [(self._grammar.root, 0)]
        while left:
            node, depth = left.pop()
            match node:
                case TextNode():
                    written.append(node.value)
                case PatternNode():
                    written.append(random_text(node.language, rng))
                case SequenceNode():
                    left += [(part, depth) for part in reversed(node.parts)]
                case ChoiceNode():
                    left.append((self._option(node, depth, rng), depth))
                case RepeatNode():
                    most = node.least + 3 if node.most is None else min(node.most, node.least + 3)
                    count = node.least if depth > self._depth else rng.randint(node.least, most)
                    left += [(node.item, depth)] * count
                case RuleNode():
                    left.append((self._grammar.rules[node.name], depth + 1))
        return "".join(written)

    def _option(self, node: ChoiceNode, depth: int, rng: random.Random) -> Node:
        return min(node.options, key=self._shortest.cost) if depth > self._depth else rng.choice(node.options)


def random_text(language: Language, rng: random.Random) -> str:
    """Return a random text of a language that has one: about ten characters, and then the shortest way to its end."""
    text = ""
    while not (language.is_nullable and rng.random() < 0.1) and len(text) < 60:
        ways = [(chars, language.derive(chars.example())) for chars in language.next_classes()]
        open_ways = [chars for chars, rest in ways if not rest.is_empty()]
        if not open_ways:
            return text
        low, high = rng.choice(rng.choice(open_ways).ranges)
        text += (char := chr(rng.choice([low, high, rng.randint(low, high)])))
        language = language.derive(char)
    return text + (language.shortest() or "")
