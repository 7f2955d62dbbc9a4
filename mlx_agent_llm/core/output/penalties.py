"""Penalties and biases as sparse changes of logits: one entry for each token that a request's parameters touch.

The entries are kept on the host and follow the request token by token; all rows' entries are applied by one gather and
one scatter. The prompt's tokens, which only the repetition penalty touches and which stay, are sent once. Everything
hangs on the request's tokens alone, so a preemption neither loses nor doubles a count.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_agent_llm.request import Request


class LogitChanges(NamedTuple):
    """N changed logits of a batch, each (row, token) at most once; all arrays have shape (N,)."""

    rows: mx.array
    token_ids: mx.array
    factors: mx.array | None  # positive logits are divided by it and negative ones multiplied; then...
    offsets: mx.array | None  # ...this is added


class TokenPenalties:
    """The entries of one request: its prompt's tokens, and the other ones side by side in three arrays."""

    def __init__(self, request: Request) -> None:
        self._request, self.params = request, request.params
        params = request.params
        self._has_penalties = has_factor(request) or bool(params.presence_penalty or params.frequency_penalty)
        self._num_read = request.num_prompt_tokens
        self._prompt = frozenset(request.prompt_token_ids if has_factor(request) else ())
        self.prompt_token_ids = np.fromiter(self._prompt, dtype=np.int32)
        self.token_ids = array("i", params.logit_bias)
        self.factors = array("f", [1.0] * len(self.token_ids))
        self.offsets = array("f", params.logit_bias.values())
        self._index = {token_id: index for index, token_id in enumerate(self.token_ids)}
        self._counts: dict[int, int] = {}  # of the output's tokens

    def follow(self) -> None:
        """Take in the output tokens that were read since the last call."""
        token_ids = self._request.token_ids
        if self._has_penalties:
            for token_id in token_ids[self._num_read :]:
                self._count(token_id)
        self._num_read = len(token_ids)

    def ahead(self, num_tokens: int) -> TokenPenalties:
        """Those after so many tokens of the request's draft."""
        if num_tokens == 0 or not self._has_penalties:
            return self
        later = copy(self)
        later.token_ids, later.factors, later.offsets = self.token_ids[:], self.factors[:], self.offsets[:]
        later._index, later._counts = dict(self._index), dict(self._counts)
        for token_id in self._request.draft.token_ids[:num_tokens]:
            later._count(token_id)
        return later

    def _count(self, token_id: int) -> None:
        params = self.params
        count = self._counts[token_id] = self._counts.get(token_id, 0) + 1
        index = self._index.setdefault(token_id, len(self.token_ids))
        if index == len(self.token_ids):
            self.token_ids.append(token_id)
            self.factors.append(1.0)
            self.offsets.append(0.0)
        if token_id not in self._prompt:
            assert params.repetition_penalty is not None, "a request's parameters are filled"
            self.factors[index] = params.repetition_penalty
        bias = params.logit_bias.get(token_id, 0.0)
        self.offsets[index] = bias - params.presence_penalty - params.frequency_penalty * count


def has_changes(request: Request) -> bool:
    """Whether the request's parameters change any logit."""
    params = request.params
    return has_factor(request) or bool(params.presence_penalty or params.frequency_penalty or params.logit_bias)


def has_factor(request: Request) -> bool:
    """Whether the request has a repetition penalty."""
    return request.params.repetition_penalty != 1


def prompt_changes(penalties: Sequence[tuple[int, TokenPenalties]]) -> LogitChanges | None:
    """What the prompts of these (row, penalties) change, step after step; None when it is nothing."""
    penalties = [(row, one) for row, one in penalties if len(one.prompt_token_ids)]
    if not penalties:
        return None
    sizes = [len(one.prompt_token_ids) for _, one in penalties]
    factors = np.array([one.params.repetition_penalty for _, one in penalties], dtype=np.float32)
    return LogitChanges(
        rows=_repeat_rows(penalties, sizes),
        token_ids=mx.array(np.concatenate([one.prompt_token_ids for _, one in penalties])),
        factors=mx.array(np.repeat(factors, sizes)),
        offsets=None,
    )


def output_changes(penalties: Sequence[tuple[int, TokenPenalties]]) -> LogitChanges | None:
    """What the outputs so far and the biases of these (row, penalties) change; None when it is nothing."""
    sizes = [len(one.token_ids) for _, one in penalties]
    if not any(sizes):
        return None
    with_factors = any(one.params.repetition_penalty != 1 for _, one in penalties)
    return LogitChanges(
        rows=_repeat_rows(penalties, sizes),
        token_ids=mx.array(np.concatenate([np.asarray(one.token_ids) for _, one in penalties])),
        factors=mx.array(np.concatenate([np.asarray(one.factors) for _, one in penalties])) if with_factors else None,
        offsets=mx.array(np.concatenate([np.asarray(one.offsets) for _, one in penalties])),
    )


def change_logits(logits: mx.array, changes: LogitChanges) -> mx.array:
    """(S, V) float32 logits with the changes made; every other logit keeps its bits."""
    index = changes.rows, changes.token_ids
    changed = logits[index]
    if changes.factors is not None:
        changed = mx.where(changed > 0, changed / changes.factors, changed * changes.factors)
    if changes.offsets is not None:
        changed = changed + changes.offsets
    result = mx.array(logits)  # an assignment changes the array that it is made to
    result[index] = changed
    return result


def _repeat_rows(penalties: Sequence[tuple[int, TokenPenalties]], sizes: Sequence[int]) -> mx.array:
    return mx.array(np.repeat(np.array([row for row, _ in penalties], dtype=np.int32), sizes))
