"""How many tokens may be needed at most to complete any beginning of a grammar's texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

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
from mlx_agent_llm.languages.context_free.nodes import rule_names
from mlx_agent_llm.languages.context_free.shortest import ShortestTexts
from mlx_agent_llm.languages.regular import Language

_MAX_WORK = 1000  # characters of the shortest texts of all derivatives; above it the number is not known
_MAX_ROUNDS = 10  # after which what still grows is taken to grow without end
_MAX_MISSING_BYTES = 3  # of a character that was begun

Counts = Callable[[str], list[float]]


def most_tokens_to_close(grammar: ContextFreeGrammar, shortest: ShortestTexts, counts: Counts) -> float:
    """The most that any state of the grammar costs; infinite where recursion or an unwieldy pattern sets no bound.

    counts: how many tokens a text takes from each of its bytes on.
    """
    most = _Most(shortest, counts)
    order = list(_innermost_first(grammar))
    for _ in range(_MAX_ROUNDS):
        before = dict(most.of_rule)
        for name in order:
            most.of_rule[name] = most.of(grammar.rules[name])
        if most.of_rule == before:
            return most.of(grammar.root)
    return math.inf


class _Most:
    """The most that any state within a node costs, as far as its rules are known."""

    def __init__(self, shortest: ShortestTexts, counts: Counts) -> None:
        self.of_rule: dict[str, float] = {}
        self._shortest = shortest
        self._counts = counts
        self._of_language: dict[Language, float] = {}

    def of(self, node: Node) -> float:
        match node:
            case TextNode(value):
                return max(self._counts(value))
            case PatternNode(language):
                return self._of_pattern(language)
            case ChoiceNode(options):
                return max(map(self.of, options))
            case RuleNode(name):
                return self.of_rule.get(name, 0)
            case RepeatNode(item, least, _):
                return self.of(item) + self._shortest.cost(node, min(1, least))
            case SequenceNode(parts):
                return max(
                    (self.of(part) + self._shortest.cost(node, i + 1) for i, part in enumerate(parts)), default=0
                )

    def _of_pattern(self, language: Language) -> float:
        if language not in self._of_language:
            self._of_language[language] = most_bytes_to_close(language) + _MAX_MISSING_BYTES
        return self._of_language[language]


def most_bytes_to_close(language: Language) -> float:
    """The most bytes of the shortest text that completes any beginning of its texts, as an upper bound.

    It follows the structure, in which a derivative is a union of what is left of parts. Only the derivatives of
    intersections and complements are looked at one by one, and where there are too many of them it is infinite.
    """
    most: dict[Language, float] = {}
    for node in language.bottom_up(most, lambda node: () if _is_boolean(node) else node.children):
        most[node] = _most_bytes_of(node, most)
    return most[language]


def _most_bytes_of(node: Language, most: Mapping[Language, float]) -> float:
    if _is_boolean(node):
        return _most_bytes_of_derivatives(node)
    match node:
        case regular.Concat(children=parts):
            after = accumulate([0, *map(_shortest_bytes, reversed(parts[1:]))])
            return max(most[part] + after for part, after in zip(reversed(parts), after, strict=True))
        case regular.Union(children=options):
            return max(most[option] for option in options)
        case regular.Repeat(item=item, least_count=least):
            return most[item] + max(least - 1, 0) * _shortest_bytes(item)
    return node.least_bytes


def _most_bytes_of_derivatives(language: Language) -> float:
    seen, left, most, work = {language}, [language], 0, 0
    while left:
        language = left.pop()
        if (text := language.shortest()) is None:
            continue  # nothing goes on from here, so no text leads here
        if (work := work + len(text) + 1) > _MAX_WORK:
            return math.inf
        most = max(most, len(text.encode()))
        for one in language.next_classes():
            after = language.derive(one.example())
            if after not in seen:
                seen.add(after)
                left.append(after)
    return most


def _shortest_bytes(language: Language) -> int:
    return language.least_bytes if language.is_plain else len((language.shortest() or "").encode())


def _is_boolean(language: Language) -> bool:
    return isinstance(language, regular.Intersection | regular.Complement)


def _innermost_first(grammar: ContextFreeGrammar) -> Iterator[str]:
    """The rules that the root reaches, each after those that it names, as far as they do not name each other."""
    seen: set[str] = set()
    left: list[tuple[str, bool]] = [(name, False) for name in rule_names(grammar.root)]
    while left:
        name, is_done = left.pop()
        if is_done:
            yield name
        elif name not in seen:
            seen.add(name)
            left.append((name, True))
            left += [(used, False) for used in rule_names(grammar.rules[name])]
