"""How many prompt tokens may ride along in a step with running streams, learned from the steps so far.

A step of streams alone takes some time; each prompt token beside them adds some. Both are medians of what was measured
last, since machines are noisy. The idea is Sarathi-Serve's stall-free batching (Agrawal et al., 2024), with a budget
that follows the machine instead of a constant.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_NUM_REMEMBERED = 16


class PromptPacer:
    """Keeps a step with streams within max_slowdown times as long as it would take without the prompts beside them."""

    def __init__(self, max_slowdown: float, block_size: int) -> None:
        self._max_slowdown = max_slowdown
        self._block_size = block_size
        self._stream_seconds: deque[float] = deque(maxlen=_NUM_REMEMBERED)  # of steps without prompts
        self._token_seconds: deque[float] = deque(maxlen=_NUM_REMEMBERED)  # that a prompt token added
        self._most_tried = block_size

    def limit(self) -> float:
        """Prompt tokens that the next step may have: at least a block, at most twice as many as were ever tried.

        Unlimited as long as no step of streams alone was seen: there is nothing yet to be slower than.
        """
        if not self._stream_seconds or math.isinf(self._max_slowdown):
            return math.inf
        if not self._token_seconds:
            return self._block_size
        spare_seconds = median(self._stream_seconds) * (self._max_slowdown - 1)
        num_tokens = int(spare_seconds / max(median(self._token_seconds), 1e-9))
        return max(min(num_tokens, 2 * self._most_tried), self._block_size)

    def observe(self, num_prompt_tokens: int, seconds: float) -> None:
        """Learn from a step that had streams: how many prompt tokens it had beside them, and how long it took."""
        if num_prompt_tokens == 0:
            self._stream_seconds.append(seconds)
        elif self._stream_seconds:
            self._token_seconds.append(max(seconds - median(self._stream_seconds), 0.0) / num_prompt_tokens)
            self._most_tried = max(self._most_tried, num_prompt_tokens)
