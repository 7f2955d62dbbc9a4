"""How many prompt tokens may ride along in a step with running streams, learned from the steps so far.

A step of streams alone takes some time; prompt tokens beside them add some, of which a part may be the same for one
token and for hundreds. So the number is found by trying: a bit more as long as the steps stay short, fewer when they do
not. The idea is Sarathi-Serve's stall-free batching (Agrawal et al., 2024), with a budget that follows the machine.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_NUM_REMEMBERED = 16


class PromptPacer:
    """Keeps a step with streams at about max_slowdown times as long as without the prompts beside them."""

    def __init__(self, max_slowdown: float, block_size: int) -> None:
        self._max_slowdown = max_slowdown
        self._block_size = block_size
        self._limit = block_size
        self._stream_seconds: deque[float] = deque(maxlen=_NUM_REMEMBERED)  # of steps without prompts

    def limit(self) -> float:
        """Prompt tokens that the next step may have, at least a block.

        Unlimited as long as no step of streams alone was seen: there is nothing yet to be slower than.
        """
        if not self._stream_seconds or math.isinf(self._max_slowdown):
            return math.inf
        return self._limit

    def observe(self, num_prompt_tokens: int, seconds: float) -> None:
        """Learn from a step that had streams: how many prompt tokens it had beside them, and how long it took."""
        if num_prompt_tokens == 0:
            self._stream_seconds.append(seconds)
            return
        if not self._stream_seconds:
            return
        alone = median(self._stream_seconds)
        added, allowed = seconds - alone, alone * (self._max_slowdown - 1)
        if added > allowed:
            self._limit = max(int(num_prompt_tokens * max(allowed / added, 0.5)), self._block_size)
        elif num_prompt_tokens + self._block_size > self._limit:  # all that was allowed, but for the rest of a block
            self._limit = num_prompt_tokens + max(num_prompt_tokens // 2, self._block_size)
