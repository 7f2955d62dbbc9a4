"""A ContextFreeGrammar in xgrammar's EBNF.

Patterns and open repetitions become right-recursive rules, one for each state of an automaton: xgrammar fills their
masks in microseconds, against milliseconds for `x*`.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlx_agent_llm.errors import ConstraintError
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
from mlx_agent_llm.languages.regular import Automaton, Language
from mlx_agent_llm.languages.regular.char_set import CharSet

MAX_STATES = 1000  # of the automata of one pattern


def ebnf_text(grammar: ContextFreeGrammar) -> str:
    """The grammar with the root rule `root`; ConstraintError for a pattern with too large an automaton."""
    writer = _Writer(grammar)
    return "".join(f"{name} ::= {body}\n" for name, body in writer.rules().items())


class _Writer:
    """Rules and languages, each as rules that are written once."""

    def __init__(self, grammar: ContextFreeGrammar) -> None:
        self._grammar = grammar
        self._bodies: dict[str, str] = {}
        self._unwritten: list[tuple[str, Node]] = [("root", grammar.root)]
        self._rule_names: dict[str, str] = {}
        self._language_names: dict[Language, str] = {}

    def rules(self) -> dict[str, str]:
        while self._unwritten:
            name, body = self._unwritten.pop()
            self._bodies[name] = self._node(body)
        return self._bodies

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
                return self._repeat(self._node(item), least, most)
            case RuleNode(name):
                return self._rule(name)

    def _repeat(self, item: str, least: int, most: int | None) -> str:
        if most is not None:
            return f"({item}){{{least},{most}}}"
        more = self._new_rule()
        self._bodies[more] = f'"" | {item} {more}'
        return f"({item}){{{least},{least}}} {more}" if least else more

    def _rule(self, key: str) -> str:
        if key not in self._rule_names:
            self._rule_names[key] = self._new_rule()
            self._unwritten.append((self._rule_names[key], self._grammar.rules[key]))
        return self._rule_names[key]

    def _language(self, language: Language) -> str:
        if language not in self._language_names:
            automaton = language.automaton(MAX_STATES)
            if automaton is None:
                raise ConstraintError(f"a pattern of the constraint needs more than {MAX_STATES} states")
            self._language_names[language] = self._automaton(automaton)
        return self._language_names[language]

    def _automaton(self, automaton: Automaton) -> str:
        names = [self._new_rule() for _ in automaton.transitions]
        for state, name in enumerate(names):
            self._bodies[name] = " | ".join(_ways(automaton, state, names))
        return names[0]

    def _new_rule(self) -> str:
        name = f"r{len(self._bodies)}"
        self._bodies[name] = ""
        return name


def _ways(automaton: Automaton, state: int, names: list[str]) -> Iterator[str]:
    """The alternatives of a state: it ends here, or goes on with a character."""
    if state in automaton.accepting:
        yield '""'
    for chars, target in automaton.transitions[state]:
        yield f"{_char_class(chars)} {names[target]}" if automaton.transitions[target] else _char_class(chars)


def _literal(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    return char if (char.isascii() and char.isalnum()) or char == " " else f"\\U{ord(char):08x}"


def _char_class(char_set: CharSet) -> str:
    return f"[{''.join(f'{_code(low)}-{_code(high)}' for low, high in char_set.ranges)}]"


def _code(code_point: int) -> str:
    return f"\\U{code_point:08x}"
