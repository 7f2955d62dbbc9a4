"""A histogram of fixed bounds, cheap enough for every request and every step."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple


class HistogramCounts(NamedTuple):
    """How often values fell where: counts[i] times into (bounds[i - 1], bounds[i]], and counts[-1] times above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # one more than bounds
    total: float  # the sum of the values


class Histogram:
    """Counts values between bounds, which ascend; one thread counts, and any thread may ask."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, as often as it came."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def snapshot(self) -> HistogramCounts:
        """The counts as they are now."""
        return HistogramCounts(self._bounds, tuple(self._counts), self._total)
