"""A ContextFreeGrammar in llguidance's dialect of Lark.

Terminals have upper-case names, are regular and are read by a lexer that takes the longest match; rules are read by an
Earley parser above it. Each leaf is a terminal where such a lexer is right; a grammar without recursion can be a single
terminal, in which nothing is left for it to decide.
"""

from __future__ import annotations

import itertools
import json

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages import regular
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

MAX_LINES = 50_000  # llguidance nests them by recursion, each within the one that names it

# Forced text is allowed in any spelling, not only in that of a tokenizer that llguidance does not have.
_HEADER = '%llguidance {"no_forcing": true}\n'
_ANY_TEXT = "ANY: /(?s:.)*/\n"  # a complement alone would hold what is no UTF-8


def lark_text(grammar: ContextFreeGrammar, *, has_lexemes: bool) -> str:
    """The grammar, each of its leaves a terminal, which a lexer must read exactly; or else, without recursion, as one.

    ConstraintError for one that is so large that it could be nested too deeply.
    """
    writer = _Writer(grammar, "rule" if has_lexemes else "RULE")
    root = writer.root()
    if len(writer.lines) > MAX_LINES:
        raise ConstraintError(f"the constraint has {len(writer.lines)} parts, and {MAX_LINES} is the most there can be")
    return f"{_HEADER}{_ANY_TEXT}start: {root}\n" + "".join(f"{line}\n" for line in writer.lines)


class _Writer:
    """Rules and languages as lines, each once."""

    def __init__(self, grammar: ContextFreeGrammar, prefix: str) -> None:
        self.lines: list[str] = []
        self._grammar = grammar
        self._prefix = prefix
        self._numbers = itertools.count()
        self._rule_names: dict[str, str] = {}
        self._unwritten: list[tuple[str, Node]] = []
        self._language_names: dict[Language, str] = {}

    def root(self) -> str:
        """Write all that the root reaches and return its name."""
        root = self._new_rule(self._grammar.root)
        while self._unwritten:
            name, body = self._unwritten.pop()
            self.lines.append(f"{name}: {self._node(body)}")
        return root

    def _node(self, node: Node) -> str:
        match node:
            case TextNode(value):
                return _literal(value)
            case PatternNode(language):
                return self._language(language)
            case SequenceNode(parts):
                return " ".join(map(self._node, parts)) if parts else '""'
            case ChoiceNode(options):
                return f"({' | '.join(map(self._node, options))})"
            case RepeatNode(item, least, most):
                return f"({self._node(item)}){_count(least, most)}"
            case RuleNode(name):
                return self._rule(name)

    def _rule(self, key: str) -> str:
        if key not in self._rule_names:
            self._rule_names[key] = self._new_rule(self._grammar.rules[key])
        return self._rule_names[key]

    def _new_rule(self, body: Node) -> str:
        name = f"{self._prefix}{next(self._numbers)}"
        self._unwritten.append((name, body))
        return name

    def _language(self, language: Language) -> str:
        """A terminal's name."""
        for node in language.bottom_up(self._language_names):
            name = self._language_names[node] = f"L{len(self._language_names)}"
            self.lines.append(f"{name}: {self._expression(node)}")
        return self._language_names[language]

    def _expression(self, language: Language) -> str:
        names = [self._language_names[child] for child in language.children]
        match language:
            case regular.Literal():
                return _literal(language.text)
            case regular.Characters():
                return f"/{_char_class(language.char_set)}/"
            case regular.Concat():
                return self._framed(language) or " ".join(names)
            case regular.Union():
                return " | ".join(names)
            case regular.Intersection():
                return self._intersection(language, "", "")
            case regular.Complement():
                return f"~{names[0]} & ANY"
            case regular.Repeat():
                return names[0] + _count(language.least_count, language.most_count)
        raise AssertionError(f"a language of kind {type(language).__name__} cannot be written")

    def _framed(self, language: regular.Concat) -> str | None:
        """An intersection between two texts, as the intersection of its parts between them.

        llguidance sees so that most tokens may follow in a string that is none of some: it looks for a repetition,
        and a complement beside it, and for nothing around the two. Otherwise it tries every token of the vocabulary.
        """
        inner = [child for child in language.children if not isinstance(child, regular.Literal)]
        if len(inner) != 1 or not isinstance(inner[0], regular.Intersection):
            return None
        at = language.children.index(inner[0])
        before, after = (
            " ".join(self._language_names[child] for child in side)
            for side in (language.children[:at], language.children[at + 1 :])
        )
        return self._intersection(inner[0], f"{before} ", f" {after}")

    def _intersection(self, language: regular.Intersection, before: str, after: str) -> str:
        """Its parts, each with the same texts before and after it."""
        parts = []
        for part in language.children:
            sign, held = ("~", part.inner) if isinstance(part, regular.Complement) else ("", part)
            parts.append(f"{sign}({before}{self._language_names[held]}{after})")
        return " & ".join(parts)


def _literal(text: str) -> str:
    return json.dumps(text)


def _char_class(char_set: CharSet) -> str:
    return f"[{''.join(f'{_code(low)}-{_code(high)}' for low, high in char_set.ranges)}]"


def _code(code_point: int) -> str:
    return f"\\x{{{code_point:x}}}"


def _count(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"
