"""From hidden states to one vector a text: the poolings of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

Pool = Callable[[mx.array, mx.array], mx.array]


def pool(modes: Sequence[str], hidden: mx.array, lengths: mx.array) -> mx.array:
    """Hidden states (B, L, D) and lengths (B,) -> (B, D * number of modes) in float32; modes are keys of POOLINGS."""
    return mx.concatenate([POOLINGS[mode](hidden, lengths) for mode in modes], axis=-1)


def reads_first_only(modes: Sequence[str]) -> bool:
    """Whether such a pooling reads the state of each text's first token alone."""
    return set(modes) == {"cls"}


def _cls(hidden: mx.array, lengths: mx.array) -> mx.array:
    return hidden[:, 0].astype(mx.float32)


def _last_token(hidden: mx.array, lengths: mx.array) -> mx.array:
    return hidden[mx.arange(len(lengths)), lengths - 1].astype(mx.float32)


def _max(hidden: mx.array, lengths: mx.array) -> mx.array:
    return mx.where(_is_real(hidden, lengths), hidden.astype(mx.float32), -mx.inf).max(axis=1)


def _mean(hidden: mx.array, lengths: mx.array) -> mx.array:
    return _sum(hidden, lengths) / lengths[:, None]


def _mean_sqrt_length(hidden: mx.array, lengths: mx.array) -> mx.array:
    return _sum(hidden, lengths) / mx.sqrt(lengths[:, None].astype(mx.float32))


def _weighted_mean(hidden: mx.array, lengths: mx.array) -> mx.array:
    """A token's weight is its position, from 1 on."""
    weights = mx.arange(1, hidden.shape[1] + 1)[None, :, None]
    return _sum(hidden.astype(mx.float32) * weights, lengths) / (lengths * (lengths + 1) / 2)[:, None]


def _sum(hidden: mx.array, lengths: mx.array) -> mx.array:
    return mx.where(_is_real(hidden, lengths), hidden.astype(mx.float32), 0).sum(axis=1)


def _is_real(hidden: mx.array, lengths: mx.array) -> mx.array:
    return mx.arange(hidden.shape[1])[None, :, None] < lengths[:, None, None]


POOLINGS: dict[str, Pool] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}
"""By the names of sentence-transformers."""
