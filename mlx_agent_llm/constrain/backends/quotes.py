"""Where a text stands for a reader of JSON strings, over all texts of a language at once.

Such a reader has a handful of states, so a language is a map from the state before its texts to those after them, and
maps of parts make those of the whole (the transition monoid of an automaton). What they say of intersections and
complements is more than can be, never less.
"""

from __future__ import annotations

import re
from functools import lru_cache, reduce
from itertools import accumulate

from mlx_agent_llm.languages import regular
from mlx_agent_llm.languages.regular import Language
from mlx_agent_llm.languages.regular.char_set import CharSet

# The states, as bits: before any text, within a string, there after a backslash, after the string, in what follows it,
# and in a text that began otherwise.
BEGIN, INSIDE, ESCAPED, CLOSED, BEYOND, OTHER = (1 << bit for bit in range(6))
_EVERY = (1 << 6) - 1
Reach = tuple[int, ...]  # for each state the states after a text, as bits

_SAME: Reach = BEGIN, INSIDE, ESCAPED, CLOSED, BEYOND, OTHER
_QUOTE: Reach = INSIDE, CLOSED, INSIDE, BEYOND, BEYOND, OTHER
_BACKSLASH: Reach = OTHER, ESCAPED, INSIDE, BEYOND, BEYOND, OTHER
_PLAIN: Reach = OTHER, INSIDE, INSIDE, BEYOND, BEYOND, OTHER  # one more of them changes nothing
_MARKS = {'"': _QUOTE, "\\": _BACKSLASH}
_PLAIN_TEXT = re.compile(r'[^"\\]+')
_kept = lru_cache(maxsize=1024)  # most grammars have the same strings and numbers, and languages few maps


@_kept
def reach_of(language: Language) -> Reach:
    """The map of a language."""
    results: dict[Language, Reach] = {}
    for node in language.bottom_up(results):
        results[node] = _join(node, [results[part] for part in node.children])
    return results[language]


def _join(node: Language, parts: list[Reach]) -> Reach:
    match node:
        case regular.Literal(text=text):
            return _of_text(_PLAIN_TEXT.sub("x", text))
        case regular.Characters(char_set=chars):
            return _of_characters(chars)
        case regular.Concat():
            return reduce(_then, parts)
        case regular.Union():
            return reduce(_either, parts)
        case regular.Intersection():
            return tuple(reduce(int.__and__, states) for states in zip(*parts, strict=True))
        case regular.Repeat(least_count=least, most_count=most):
            return _repeated(parts[0], least, most)
    return (_EVERY,) * len(_SAME)


@_kept
def _of_text(text: str) -> Reach:
    return reduce(_then, (_MARKS.get(char, _PLAIN) for char in text), _SAME)


def _of_characters(chars: CharSet) -> Reach:
    marks = [mark for mark in _MARKS if mark in chars]
    kinds = [_MARKS[mark] for mark in marks] + ([_PLAIN] if len(chars) > len(marks) else [])
    return reduce(_either, kinds, (0,) * len(_SAME))


@_kept
def _repeated(item: Reach, least: int, most: int | None) -> Reach:
    """The least items, then any number of further ones: as many as there are other states reach all that more do."""
    longest = len(_SAME) - 1
    num_more = longest if most is None else min(longest, most - least)
    more = reduce(_either, accumulate([item] * num_more, _then, initial=_SAME))
    return _then(_power(item, least), more)


def _power(item: Reach, count: int) -> Reach:
    """So many items, by squaring."""
    power = _SAME
    while count:
        power = _then(power, item) if count % 2 else power
        item, count = _then(item, item), count // 2
    return power


@_kept
def _then(first: Reach, second: Reach) -> Reach:
    return tuple(
        reduce(int.__or__, (after for state, after in zip(_SAME, second, strict=True) if states & state), 0)
        for states in first
    )


@_kept
def _either(one: Reach, other: Reach) -> Reach:
    return tuple(mine | theirs for mine, theirs in zip(one, other, strict=True))
