"""How many prompt tokens may ride along in a step with running streams, learned from the steps so far.

A step of streams alone takes some time; prompt tokens beside them add some, of which a part may be the same for one
token and for hundreds. So the number is found by trying: a bit more as long as the steps stay short, fewer when they do
not. The idea is Sarathi-Serve's stall-free batching (Agrawal et al., 2024), with a budget that follows the machine.

Where the part that is always the same is more than streams should wait for, as on a GPU that computes a row in no time,
few tokens a step would slow all of a prompt's steps and make them many. Then as many ride along as double that part.

Single steps are slow for reasons of their own (a kernel is compiled, another thread computes), so nothing is learned
from one alone: all times are medians.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from itertools import accumulate, pairwise
from statistics import median

_NUM_REMEMBERED = 16


class PromptPacer:
    """Keeps a step with streams at about max_slowdown times as long as without the prompts beside them."""

    def __init__(self, max_slowdown: float, block_size: int) -> None:
        self._max_slowdown = max_slowdown
        self._block_size = block_size
        self._limit = 2 * block_size  # where that is too much, one block says next what of it the tokens take
        self._stream_seconds: deque[float] = deque(maxlen=_NUM_REMEMBERED)  # of steps without prompts
        self._added: deque[tuple[int, float]] = deque(maxlen=_NUM_REMEMBERED)  # prompt tokens, and seconds for them

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
        self._added.append((num_prompt_tokens, seconds - alone))
        token_seconds = self._token_seconds()
        fixed_seconds = max(median(added - count * token_seconds for count, added in self._added), 0.0)
        allowed = max(alone * (self._max_slowdown - 1), 2 * fixed_seconds)
        num_allowed = (allowed - fixed_seconds) / token_seconds if token_seconds > 0 else math.inf
        if num_allowed < num_prompt_tokens:
            limit = max(num_allowed, num_prompt_tokens / 2)
        elif num_prompt_tokens + self._block_size > self._limit:  # all that was allowed, but for the rest of a block
            limit = min(num_allowed, num_prompt_tokens + max(num_prompt_tokens // 2, self._block_size))
        else:
            return
        self._limit = max(int(limit), self._block_size)

    def _token_seconds(self) -> float:
        """What a prompt token adds to a step: the median slope between steps that follow each other.

        They follow each other because a prompt's later tokens take longer anyway. As in the Theil-Sen estimator with
        weights, a slope counts by the tokens that its two steps are apart. One more, of a block, is that of steps to
        which prompts add nothing but what their tokens take.
        """
        slopes = [(median(added / count for count, added in self._added), self._block_size)]
        for (count, added), (next_count, next_added) in pairwise(self._added):
            if apart := next_count - count:
                slopes.append(((next_added - added) / apart, abs(apart)))
        slopes.sort()
        weights = list(accumulate(weight for _, weight in slopes))
        return slopes[bisect_left(weights, weights[-1] / 2)][0]
