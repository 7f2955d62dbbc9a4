"""How a prompt gets its KV soonest: by reading, by computing, or by both from both ends. Knows no files and no pools.

Computing begins at a prompt's head, because each token needs the KV of all before it; reading may begin at the end. So
both at once meet somewhere in between, as in Cake (Jin et al. 2024, "Compute Or Load KV Cache? Why Not Both?").
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal, NamedTuple

_MIN_PATIENCE = 0.5  # seconds that a prompt waits for the disk in any case: a rate of a few tokens says little
_NUM_REMEMBERED = 16  # pieces: a disk that was slow once may be fast later
_WORTH_BOTH = 0.8  # of the time that the faster one takes alone: below that both at once are worth it


class Way(NamedTuple):
    """How the next tokens of a prompt get their KV.

    num_to_compute: tokens that are computed until both meet; patience: seconds that a prompt waits for the disk before
    it computes, too.
    """

    name: Literal["read", "compute", "both"]
    num_to_compute: int
    patience: float


class _Measured(NamedTuple):
    """What a piece took."""

    num_bytes: int
    reading_seconds: float
    putting_seconds: float


class ReadingRates:
    """What a byte took lately: on the threads that read, and on the engine's, which puts it into a pool."""

    def __init__(self) -> None:
        self._measured = deque[_Measured](maxlen=_NUM_REMEMBERED)

    def count(self, num_bytes: int, reading_seconds: float, putting_seconds: float) -> None:
        """Some bytes were read in so many seconds, beside others that were read at once, and put into a pool."""
        if num_bytes:
            self._measured.append(_Measured(num_bytes, reading_seconds, putting_seconds))

    def choose(self, num_bytes: int, num_tokens: int, tokens_per_second: float | None) -> Way:
        """The shortest way for so many tokens, whose KV takes so many bytes.

        As long as nothing was read or computed yet, reading is taken to be the faster one.
        """
        if tokens_per_second is None:
            return Way("read", 0, math.inf)
        computing = num_tokens / tokens_per_second
        patience = max(computing, _MIN_PATIENCE)
        if not self._measured:
            return Way("read", 0, patience)
        num_measured, *seconds = map(sum, zip(*self._measured, strict=True))
        reading, putting = (num_bytes / num_measured * one for one in seconds)
        one = min(computing, max(reading, putting))
        # What is read is put by the thread that computes: both end together where a part of the tokens is read.
        part = computing / (reading + computing - putting) if putting < min(reading, computing) else 1.0
        if part < 1.0 and part * reading < _WORTH_BOTH * one:
            return Way("both", int((1 - part) * num_tokens), 0.0)
        return Way("read", 0, patience) if one < computing else Way("compute", num_tokens, 0.0)
