"""Texts that derivatives lead to: the one of the fewest UTF-8 bytes, or any, by A* (Hart, Nilsson and Raphael 1968)."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Protocol, TypeVar

from mlx_agent_llm.errors import ConstraintError
from mlx_agent_llm.languages.regular.automaton import Derivable

MAX_STEPS = 8_000  # about half a second


class Searchable(Derivable, Protocol):
    """A language that knows a lower bound of its texts' bytes."""

    def bound(self) -> int | None:
        """A number of bytes that no text goes below; None when it is known that there is no text."""

    def is_solved(self) -> bool:
        """Whether `shortest` answers without a search; then the bound is exact."""

    def shortest(self) -> str | None:
        """A text of the fewest bytes, None when there is none."""

    def remember_shortest(self, text: str | None) -> None:
        """Take what a search found out."""

    def remember_not_empty(self) -> None:
        """Take what a search for any text found out."""


S = TypeVar("S", bound=Searchable)
Origins = dict[S, tuple[S, str]]  # of each language that was passed, the one before it, and the character


def cheapest_text(start: S) -> str | None:
    """A text of the fewest bytes, None when there is none, and tell every language on the way its own."""
    end, origins = _search(start, distance_weight=1)
    if end is None:
        return None
    text = "" if end.is_nullable else end.shortest()
    assert text is not None, "an empty language is never passed"
    for language, char in _way_back(end, origins):
        text = char + text
        language.remember_shortest(text)
    return text


def has_text(start: S) -> bool:
    """Whether there is a text, going straight ahead; and tell every language on the way."""
    end, origins = _search(start, distance_weight=0)
    if end is None:
        return False
    for language, _ in _way_back(end, origins):
        language.remember_not_empty()
    return True


def _search(start: S, distance_weight: int) -> tuple[S | None, Origins[S]]:
    """A language that holds a text at once or is solved, None when there is none, and how it was reached."""
    distances: dict[S, int] = {start: 0}
    origins: Origins[S] = {}
    heap = [(start.bound() or 0, False, 0, 0, start)]  # of equal totals, first what is solved, near, and pushed late
    num_pushed, num_steps = 0, 0
    while heap:
        language = heappop(heap)[-1]
        if language.is_nullable or language.is_solved():
            return language, origins
        for chars in language.next_classes():
            char = chars.example()
            target = language.derive(char)
            bound, distance = target.bound(), distances[language] + distance_weight * len(char.encode())
            if bound is None or distance >= distances.get(target, distance + 1):
                continue
            distances[target], origins[target] = distance, (language, char)
            num_pushed, num_steps = num_pushed + 1, num_steps + 1 + len(target.children)
            if num_steps > MAX_STEPS:
                raise ConstraintError(f"a pattern is too complex: its search takes more than {MAX_STEPS} steps")
            heappush(heap, (distance + bound, not target.is_solved(), bound, -num_pushed, target))
    for language in distances:
        language.remember_shortest(None)
    return None, origins


def _way_back(end: S, origins: Origins[S]) -> Iterator[tuple[S, str]]:
    while end in origins:
        end, char = origins[end]
        yield end, char
