"""How many prompt tokens may ride along in a step with running streams, learned from the steps so far.

A step of streams alone takes some time; prompt tokens beside them add some, of which a part may be the same for one
token and for hundreds. So the number is found by trying: a bit more as long as the steps stay short, fewer when they do
not. The idea is Sarathi-Serve's stall-free batching (Agrawal et al., 2024), with a budget that follows the machine.

Where the part that is always the same is more than streams should wait for, as on a GPU that computes a row in no time,
few tokens a step would slow all of a prompt's steps and make them many. Then as many ride along as double that part.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
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
        added = seconds - alone
        self._added.append((num_prompt_tokens, added))
        allowed = max(alone * (self._max_slowdown - 1), 2 * self._fixed_seconds())
        if added > allowed:
            self._limit = max(int(num_prompt_tokens * max(allowed / added, 0.5)), self._block_size)
        elif num_prompt_tokens + self._block_size > self._limit:  # all that was allowed, but for the rest of a block
            self._limit = num_prompt_tokens + max(num_prompt_tokens // 2, self._block_size)

    def _fixed_seconds(self) -> float:
        """What prompts add to a step however short they are; 0 as long as all were of one length.

        A token's seconds are told from steps that follow each other: a prompt's later ones take longer anyway.
        """
        changes = [(new[0] - old[0], new[1] - old[1]) for old, new in pairwise(self._added)]
        spread = sum(count**2 for count, _ in changes)
        if spread == 0:
            return 0.0
        token_seconds = max(sum(count * seconds for count, seconds in changes) / spread, 0.0)
        return max(min(seconds - count * token_seconds for count, seconds in self._added), 0.0)
