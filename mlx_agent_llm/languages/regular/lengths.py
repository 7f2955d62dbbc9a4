"""Lengths of texts, where None is without end."""

from __future__ import annotations

from collections.abc import Iterable


def sum_of_lengths(lengths: Iterable[int | None]) -> int | None:
    """The sum, None if a length is without end."""
    total = 0
    for length in lengths:
        if length is None:
            return None
        total += length
    return total


def longest_of(lengths: Iterable[int | None]) -> int | None:
    """The longest length, None if one is without end."""
    longest = 0
    for length in lengths:
        if length is None:
            return None
        longest = max(longest, length)
    return longest


def shortest_of(lengths: Iterable[int | None]) -> int | None:
    """The shortest length, None if all are without end."""
    return min((length for length in lengths if length is not None), default=None)
