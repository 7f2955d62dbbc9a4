"""Samples: tokens that were sampled on the device and not yet read, with what is read beside them."""

from __future__ import annotations

import math
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
    highest: mx.array  # (S,) of the model's logits: NaN where there is one, -inf where there is nothing else
    logprobs: LogprobArrays | None

    def read(self) -> tuple[list[int], list[bool]]:
        """Tokens, and whether their logits were finite: the only point where a step waits for the device."""
        token_ids: list[int] = self.tokens.tolist()  # type: ignore[assignment]
        highest: list[float] = self.highest.tolist()  # type: ignore[assignment]
        return token_ids, list(map(math.isfinite, highest))

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
    highest = mx.max(logits, axis=-1)
    mx.async_eval(tokens, highest, *(logprobs.arrays if logprobs else ()))
    return Samples(tokens, highest, logprobs)
