"""Log-probabilities of sampled tokens under the model's own distribution: computed on the device, read with the tokens.

Every row that asks for alternatives ranks as many as anybody may ask for: its own do not depend on its neighbours' k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.request import MAX_LOGPROBS, Request, TokenLogprob


class LogprobArrays(NamedTuple):
    """Of the L rows that ask for log-probabilities, on the device."""

    rows: npt.NDArray[np.int32]  # (L,) of the batch
    sampled: mx.array  # (L,)
    top_token_ids: mx.array | None  # (L, K) in no order; None when no row asks for alternatives
    top: mx.array | None  # (L, K)

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be evaluated."""
        return [array for array in self[1:] if isinstance(array, mx.array)]


def compute_logprobs(
    logits: mx.array, tokens: mx.array, rows: npt.NDArray[np.int32], *, with_top: bool
) -> LogprobArrays:
    """logits: (S, V) as the model gave them; tokens: (S,) sampled; rows: (L,) those that ask."""
    index = mx.array(rows)
    wanted = logits[index].astype(mx.float32)
    log_total = mx.logsumexp(wanted, axis=-1, keepdims=True)
    sampled = (mx.take_along_axis(wanted, tokens[index][:, None], axis=-1) - log_total)[:, 0]
    if not with_top:
        return LogprobArrays(rows, sampled, None, None)
    count = min(MAX_LOGPROBS, wanted.shape[-1])
    top_token_ids = mx.argpartition(-wanted, kth=count - 1, axis=-1)[:, :count]
    return LogprobArrays(rows, sampled, top_token_ids, mx.take_along_axis(wanted, top_token_ids, axis=-1) - log_total)


def read_logprobs(
    arrays: LogprobArrays, token_ids: Sequence[int], requests: Sequence[Request]
) -> list[TokenLogprob | None]:
    """One for each of the batch's S rows, None for a row that did not ask."""
    sampled: list[float] = arrays.sampled.tolist()  # type: ignore[assignment]
    tops = _best_first(arrays)
    logprobs: list[TokenLogprob | None] = [None] * len(token_ids)
    for index, row in enumerate(arrays.rows.tolist()):
        top = tuple(tops[index][: requests[row].params.logprobs]) if tops else ()
        logprobs[row] = TokenLogprob(token_ids[row], sampled[index], top)
    return logprobs


def closing_logprobs(token_ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
    """Those of tokens that close a text, for which nothing was computed."""
    return tuple(TokenLogprob(token_id, math.nan, ()) for token_id in token_ids)


def _best_first(arrays: LogprobArrays) -> list[list[tuple[int, float]]]:
    """(L, K) pairs of token id and log-probability, the most probable first, the lower id first of equal ones."""
    if arrays.top is None or arrays.top_token_ids is None:
        return []
    token_ids, top = np.array(arrays.top_token_ids).astype(np.int64), np.array(arrays.top)
    order = np.lexsort((token_ids, -top), axis=-1)
    best_ids, best = np.take_along_axis(token_ids, order, axis=-1), np.take_along_axis(top, order, axis=-1)
    return [list(zip(ids, values, strict=True)) for ids, values in zip(best_ids.tolist(), best.tolist(), strict=True)]
