"""One computation beside its reference: how far apart they are, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf, isfinite
from typing import NamedTuple

import mlx.core as mx

_MAX_RUNS, _ENOUGH_SECONDS = 5, 0.1


class Comparison(NamedTuple):
    """The largest difference from the reference, as a part of its largest number, and seconds of the fastest run."""

    name: str
    dtype: str
    error: float
    tolerance: float
    seconds: float

    @property
    def is_close(self) -> bool:
        """Whether the difference is rounding; numbers that are not finite are none."""
        return self.error <= self.tolerance


def compare(
    name: str, dtype: mx.Dtype, tolerance: float, compute: Callable[[], list[mx.array]], expected: list[mx.array]
) -> Comparison:
    """Run a computation, the first time for its results and what is compiled, then for its time."""
    results = compute()
    mx.eval(results)
    error = max(distance(*pair) for pair in zip(results, expected, strict=True))
    return Comparison(name, dtype_name(dtype), error, tolerance, fastest(compute))


def fastest(compute: Callable[[], list[mx.array]]) -> float:
    """Seconds of the fastest of a few runs."""
    seconds = [_seconds_of(compute)]
    while len(seconds) < _MAX_RUNS and sum(seconds) < _ENOUGH_SECONDS:
        seconds.append(_seconds_of(compute))
    return min(seconds)


def distance(found: mx.array, expected: mx.array) -> float:
    """The largest difference, as a part of the largest expected number; infinite where a result is not finite."""
    difference = mx.abs(found.astype(mx.float32) - expected.astype(mx.float32)).max()
    error: float = (difference / mx.abs(expected.astype(mx.float32)).max()).item()  # type: ignore[assignment]
    return error if isfinite(error) else inf


def dtype_name(dtype: mx.Dtype) -> str:
    """As a table says it."""
    return str(dtype).removeprefix("mlx.core.")


def _seconds_of(compute: Callable[[], list[mx.array]]) -> float:
    began_at = time.perf_counter()
    mx.eval(compute())
    return time.perf_counter() - began_at
