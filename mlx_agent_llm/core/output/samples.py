"""Samples: tokens that were sampled on the device and not yet read, with what is read beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.core.output.logprobs import LogprobArrays, compute_logprobs, read_logprobs
from mlx_agent_llm.core.output.sampler import SamplingRows, sample
from mlx_agent_llm.request import Request, TokenLogprob


class Samples(NamedTuple):
    """Of S rows, on the device."""

    tokens: mx.array  # (S,)
    is_finite: mx.array  # (S,) whether the model's logits were numbers to sample from
    logprobs: LogprobArrays | None

    def read(self) -> tuple[list[int], list[bool]]:
        """Tokens, and whether their logits were finite: the only point where a step waits for the device."""
        token_ids: list[int] = self.tokens.tolist()  # type: ignore[assignment]
        is_finite: list[bool] = self.is_finite.tolist()  # type: ignore[assignment]
        return token_ids, is_finite

    def read_logprobs(self, token_ids: list[int], requests: Sequence[Request]) -> list[TokenLogprob | None]:
        """Those of tokens that were read: they were computed together, so that nothing is waited for."""
        if self.logprobs is None:
            return [None] * len(token_ids)
        return read_logprobs(self.logprobs, token_ids, requests)


def dispatch_samples(logits: mx.array, bitmask: npt.NDArray[np.int32] | None, rows: SamplingRows) -> Samples:
    """Let the device sample a token a row; logits: (S, V), bitmask: (S, ceil(V / 32))."""
    tokens = sample(logits, bitmask, rows)
    logprobs = None
    if rows.logprob_rows is not None:
        logprobs = compute_logprobs(logits, tokens, rows.logprob_rows, with_top=rows.with_top_logprobs)
    is_finite = _is_finite(logits)
    mx.async_eval(tokens, is_finite, *(logprobs.arrays if logprobs else ()))
    return Samples(tokens, is_finite, logprobs)


def _is_finite(logits: mx.array) -> mx.array:
    """(S,) whether no logit of (S, V) is NaN or infinite and one at least is not -inf, in one pass over them."""
    return mx.isfinite(mx.logsumexp(logits.astype(mx.float32), axis=-1))
