"""Expressions with `^` and `$` as languages.

What such an expression matches depends on where the match stands in the text, and on nothing else: whether it begins
where the text begins, and whether it ends where the text ends. So it is four languages, and the rules below combine
them exactly; an expression without anchors is four times the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mlx_agent_llm.languages.regular import (
    ANY_TEXT,
    EMPTY_TEXT,
    NOTHING,
    Language,
    concat,
    repeat,
    union,
)

MAX_ANCHORED_COUNT = 100
POSITIONS = tuple(itertools.product((False, True), repeat=2))  # (at the beginning of the text, at its end)


class Expression(NamedTuple):
    """The texts that an expression matches inside a text, at its beginning, at its end, and as all of it."""

    inside: Language
    at_begin: Language
    at_end: Language
    whole: Language

    def at(self, begin: bool, end: bool) -> Language:
        """What the expression matches at this position."""
        return self[begin + 2 * end]

    @property
    def is_free(self) -> bool:
        """Whether the position does not matter."""
        return all(language is self.inside for language in self)


def free(language: Language) -> Expression:
    """The expression that matches a language everywhere."""
    return Expression(language, language, language, language)


BEGIN = Expression(NOTHING, EMPTY_TEXT, NOTHING, EMPTY_TEXT)
END = Expression(NOTHING, NOTHING, EMPTY_TEXT, EMPTY_TEXT)


def found_in_text(expression: Expression) -> Language:
    """The texts somewhere in which the expression matches."""
    return sequence([free(ANY_TEXT), expression, free(ANY_TEXT)]).whole


def alternatives(options: Iterable[Expression]) -> Expression:
    """What any of the options matches."""
    found = list(options)
    return _everywhere(lambda begin, end: union(*(option.at(begin, end) for option in found)))


def sequence(parts: Iterable[Expression]) -> Expression:
    """What the parts match one after the other."""
    joined = free(EMPTY_TEXT)
    for is_free, group in itertools.groupby(parts, key=lambda part: part.is_free):
        run = list(group)
        for part in [free(concat(*(part.inside for part in run)))] if is_free else run:
            joined = _follow(joined, part)
    return joined


def counted(expression: Expression, least: int, most: int | None) -> Expression | None:
    """`least` to `most` matches; None when an expression with anchors is counted beyond reason."""
    if expression.is_free:
        return free(repeat(expression.inside, least, most))
    if least > MAX_ANCHORED_COUNT:
        return None
    return sequence([*[expression] * least, _up_to(expression, None if most is None else most - least)])


def _everywhere(make: Callable[[bool, bool], Language]) -> Expression:
    return Expression(*(make(begin, end) for end, begin in POSITIONS))


def _follow(left: Expression, right: Expression) -> Expression:
    return _everywhere(lambda begin, end: _follow_at(left, right, begin, end))


def _follow_at(left: Expression, right: Expression, begin: bool, end: bool) -> Language:
    """The texts of the left and the right: the left is at the end only if the right is empty, and vice versa.

    Whatever is matched inside a text is matched at its beginning and end too, so no text is counted in vain.
    """
    alone, before = left.at(begin, end), left.at(begin, False)  # the left if the right is empty, and if not
    last, after = right.at(begin, end), right.at(False, end)  # the right if the left is empty, and if not
    if alone is before and last is after:
        return concat(alone, last)
    return union(
        concat(before, after),
        last if before.is_nullable else NOTHING,
        alone if after.is_nullable else NOTHING,
        EMPTY_TEXT if alone.is_nullable and last.is_nullable else NOTHING,
    )


def _up_to(expression: Expression, most: int | None) -> Expression:
    """No match to `most` matches: none, one, or a first, others, and a last one."""
    none = free(EMPTY_TEXT)
    if most == 0:
        return none
    if most == 1:
        return alternatives([none, expression])
    between = free(repeat(expression.inside, 0, None if most is None else most - 2))
    return alternatives([none, expression, sequence([expression, between, expression])])
