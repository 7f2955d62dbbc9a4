"""Logits, bitmask and per-row parameters to tokens: pure functions over all rows at once, no row by row Python.

A row's random numbers come from its own (seed, position) alone, so its tokens do not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_kernels import apply_token_bitmask
from mlx_agent_llm.request import Request


class SamplingRows(NamedTuple):
    """The parameters of S rows, as arrays of shape (S,)."""

    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int32]
    top_p: npt.NDArray[np.float32]
    min_p: npt.NDArray[np.float32]
    seed: npt.NDArray[np.uint32]
    position: npt.NDArray[np.uint32]  # of the token that is sampled


def sampling_rows(requests: Sequence[Request]) -> SamplingRows:
    """The rows' parameters; called before the requests know of the coming sample."""
    params = [request.params for request in requests]
    return SamplingRows(
        temperature=np.array([p.temperature for p in params], dtype=np.float32),
        top_k=np.array([p.top_k for p in params], dtype=np.int32),
        top_p=np.array([p.top_p for p in params], dtype=np.float32),
        min_p=np.array([p.min_p for p in params], dtype=np.float32),
        seed=np.array([request.seed for request in requests], dtype=np.uint32),
        position=np.array([request.num_tokens for request in requests], dtype=np.uint32),
    )


def sample(logits: mx.array, bitmask: npt.NDArray[np.int32] | None, rows: SamplingRows) -> mx.array:
    """One token a row.

    logits: (S, V); bitmask: (S, ceil(V / 32)) or None when every token is allowed everywhere. Returns (S,) int32.
    """
    logits = logits.astype(mx.float32)
    if bitmask is not None:
        logits = apply_token_bitmask(logits, mx.array(bitmask))
    greedy = mx.argmax(logits, axis=-1)
    if not rows.temperature.any():
        return greedy.astype(mx.int32)
    is_random = rows.temperature > 0
    logits = logits - mx.max(
        logits, axis=-1, keepdims=True
    )  # or a temperature near zero makes several of them infinite
    logits = logits / mx.array(np.where(is_random, rows.temperature, np.float32(1)))[:, None]
    tokens = _draw(_keep_likely(logits, rows), rows)
    return mx.where(mx.array(is_random), tokens, greedy).astype(mx.int32)


def _keep_likely(logits: mx.array, rows: SamplingRows) -> mx.array:
    """top_k, then top_p of what is left, then min_p; each row by its own parameters, the rest set to -inf."""
    if (rows.top_k > 0).any() or (rows.top_p < 1).any():
        logits = mx.where(logits >= _threshold(logits, rows)[:, None], logits, -math.inf)
    if (rows.min_p > 0).any():
        bound = mx.max(logits, axis=-1, keepdims=True) + mx.log(mx.array(rows.min_p))[:, None]
        logits = mx.where(logits >= bound, logits, -math.inf)
    return logits


def _threshold(logits: mx.array, rows: SamplingRows) -> mx.array:
    """(S,) the smallest logit that top_k and top_p keep; equal logits stay together."""
    ordered = -mx.sort(-logits, axis=-1)
    rank = mx.arange(logits.shape[-1])[None]
    top_k = mx.array(np.where(rows.top_k > 0, rows.top_k, logits.shape[-1]))[:, None]
    ordered = mx.where(rank < top_k, ordered, -math.inf)
    probabilities = mx.softmax(ordered, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities  # the mass of all more likely tokens
    top_p = np.where(rows.top_p < 1, rows.top_p, np.float32(math.inf))  # a sum of float32 passes 1 before its end
    is_kept = (before < mx.array(top_p)[:, None]) & (ordered > -math.inf)
    is_kept = is_kept | (rank == 0)
    return mx.min(mx.where(is_kept, ordered, math.inf), axis=-1)


def _draw(logits: mx.array, rows: SamplingRows) -> mx.array:
    """One draw a row from softmax(logits) by the Gumbel-max trick, which can never take a token at -inf."""
    keys = mx.array(np.stack([rows.seed, rows.position], axis=1))
    noise = mx.vmap(lambda key: mx.random.gumbel((logits.shape[-1],), key=key))(keys)
    return mx.argmax(logits + noise, axis=-1)
