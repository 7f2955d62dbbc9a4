"""When the tokens of each request came."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Gap(NamedTuple):
    """The time between two arrivals of one stream, in seconds of the same clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


class Arrivals:
    """Moments in seconds since it was made."""

    def __init__(self) -> None:
        self._began_at = time.perf_counter()
        self._moments: defaultdict[int, list[float]] = defaultdict(list)

    @property
    def now(self) -> float:
        """The present moment."""
        return time.perf_counter() - self._began_at

    def note(self, request: int, num_tokens: int = 1) -> None:
        """Tokens of a request arrived."""
        self._moments[request] += [self.now] * num_tokens

    def count(self, request: int) -> int:
        """Tokens of the request so far."""
        return len(self._moments[request])

    def first(self, request: int) -> float:
        """When its first token came."""
        return self._moments[request][0]

    def last(self, request: int) -> float:
        """When its last token came."""
        return self._moments[request][-1]

    def num_after(self, moment: float) -> int:
        """Tokens of all requests that came later."""
        return sum(one > moment for moments in self._moments.values() for one in moments)

    def gaps(self, requests: Iterable[int]) -> list[Gap]:
        """Between the tokens that follow each other in a stream, of all these streams."""
        return [
            Gap(begin, end)
            for request in requests
            for begin, end in zip(self._moments[request], self._moments[request][1:], strict=False)
        ]
