"""Two leaves side by side: whether one goes on where the other one could end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from mlx_agent_llm.languages.regular import NOTHING, Language, Literal
from mlx_agent_llm.languages.regular.char_set import CharSet, coarsest_partition

MAX_PRODUCT_STATES = 20_000


class TooComplexError(Exception):
    """It takes too long to find out."""


class Comparison(NamedTuple):
    """overlaps: a text belongs to both; goes_on: one of the first, with what follows it, begins one of the second."""

    overlaps: bool
    goes_on: bool


@lru_cache(maxsize=1024)  # numbers and words stand beside each other in most schemas
def compare(first: Language, second: Language, follow: CharSet) -> Comparison:
    """Read both languages side by side. Empty texts do not count: the parser passes them by without the lexer."""
    if isinstance(first, Literal) and isinstance(second, Literal):
        after = second.text[len(first.text) :] if second.text.startswith(first.text) else ""
        return Comparison(first is second, goes_on=bool(after) and after[0] in follow)
    overlaps = False
    seen = {(first, second)}
    for one, other in (queue := [(first, second)]):
        if len(seen) > MAX_PRODUCT_STATES:
            raise TooComplexError
        for after_one, after_other in _common_steps(one, other):
            if after_one.is_nullable:
                overlaps = overlaps or after_other.is_nullable
                if first_of(after_other) & follow:
                    return Comparison(overlaps, goes_on=True)
            if (after_one, after_other) not in seen:
                seen.add((after_one, after_other))
                queue.append((after_one, after_other))
    return Comparison(overlaps, goes_on=False)


def _common_steps(one: Language, other: Language) -> Iterator[tuple[Language, Language]]:
    both = coarsest_partition(frozenset([*one.next_classes(), *other.next_classes()]))
    for char in both.examples:
        after_one, after_other = one.derive(char), other.derive(char)
        if after_one is not NOTHING and after_other is not NOTHING:
            yield after_one, after_other


@lru_cache(maxsize=4096)
def first_of(language: Language) -> CharSet:
    """The characters that a text may begin with; some more where that is hard to see."""
    possible = (chars for chars in language.next_classes() if language.derive(chars.example()) is not NOTHING)
    return CharSet(span for chars in possible for span in chars.ranges)
