"""The interval that a proportion lies in."""

from __future__ import annotations

import math
from typing import NamedTuple

_Z = 1.959964  # of 95 %


class Proportion(NamedTuple):
    """So many hits of so many trials."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """NaN of nothing."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, after Wilson (1927): within 0 and 1, and never of no width."""
        if not self.total:
            return 0.0, 1.0
        weight = _Z**2 / self.total
        middle = (self.share + weight / 2) / (1 + weight)
        half = _Z / (1 + weight) * math.sqrt(self.share * (1 - self.share) / self.total + weight / (4 * self.total))
        return max(middle - half, 0.0), min(middle + half, 1.0)
