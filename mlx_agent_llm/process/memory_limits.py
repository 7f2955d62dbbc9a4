"""MLX's limits on Metal while an engine is open: what stays in memory, and what is kept of freed buffers.

By MLX's defaults nothing stays, so that weights which rest may be compressed or swapped, and freed buffers are kept up
to the memory limit, one and a half times what the device recommends to use at all. Other devices need no change: a CUDA
device's memory is nobody else's, and on a CPU MLX keeps 32 MiB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_llm.process.device_memory import GIB, usable_bytes

_CACHE_PART = 16  # of an 8 GiB Mac 340 MB; by its widths, a step of 512 tokens of an 8B model takes about 100 MB


class Limits(NamedTuple):
    """Bytes that stay in memory at most, and bytes of freed buffers that are kept at most."""

    wired: int
    cache: int


class MemoryLimits:
    """A context for any number of threads: MLX's limits are limits_here() until the last one leaves.

    A lower cache limit of the user's stays, and so does a higher wired limit. Then they are as before, unless somebody
    has set others meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._changes: Sequence[_Change] = ()

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside == 1:
                self._changes = _change_limits()

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                for change in self._changes:
                    change.undo()


def limits_here() -> Limits | None:
    """The limits while an engine is open; None where MLX's own stay."""
    if not mx.metal.is_available():
        return None
    usable = usable_bytes(mx.Device(mx.gpu))
    return Limits(usable, usable // _CACHE_PART)


def describe_limits() -> str:
    """The limits while an engine is open, in words."""
    limits = limits_here()
    if limits is None:
        return "MLX's own"
    return f"{limits.wired / GIB:.1f} GiB wired, {limits.cache / GIB:.1f} GiB of freed buffers, while an engine is open"


class _Change(NamedTuple):
    set_limit: Callable[[int], int]  # which returns the one before
    before: int
    now: int

    def undo(self) -> None:
        found = self.set_limit(self.before)
        if found != self.now:
            self.set_limit(found)


def _change_limits() -> Sequence[_Change]:
    limits = limits_here()
    if limits is None:
        return ()
    wired = _changed(mx.set_wired_limit, limits.wired, lambda before: before < limits.wired)
    cache = _changed(mx.set_cache_limit, limits.cache, lambda before: before > limits.cache)
    return [change for change in (wired, cache) if change is not None]


def _changed(set_limit: Callable[[int], int], limit: int, is_wanted: Callable[[int], bool]) -> _Change | None:
    """MLX tells a limit only when it is changed."""
    before = set_limit(limit)
    if is_wanted(before):
        return _Change(set_limit, before, limit)
    set_limit(before)
    return None


memory_limits = MemoryLimits()
