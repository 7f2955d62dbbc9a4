"""Quantizers of the K types, for files that tests write: plain rounding, without the search of ggml's own."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def quantize(kind: str, values: Array) -> Array:
    """The bytes of the values (..., items), (..., bytes); Q4_K and Q6_K by the functions below, others by gguf."""
    if kind not in ("Q4_K", "Q6_K"):
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])  # type: ignore[no-any-return]
    encode = _q4_k if kind == "Q4_K" else _q6_k
    return encode(values.reshape(-1, 256).astype(np.float32)).reshape(*values.shape[:-1], -1)


def _q4_k(blocks: Array) -> Array:
    groups = blocks.reshape(-1, 8, 32)
    low = np.minimum(groups.min(axis=2), 0)
    scales, minima = (groups.max(axis=2) - low) / 15, -low
    d, dmin = (_half(part.max(axis=1, keepdims=True) / 63) for part in (scales, minima))
    factors, offsets = (_rounded(part / _nonzero(one), 63) for part, one in ((scales, d), (minima, dmin)))
    step = (d * factors)[:, :, None]
    items = _rounded((groups + (dmin * offsets)[:, :, None]) / _nonzero(step), 15)
    pairs = items.reshape(-1, 4, 2, 32)
    packed = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    first, second = factors[:, :4] | factors[:, 4:] >> 4 << 6, offsets[:, :4] | offsets[:, 4:] >> 4 << 6
    both = (factors[:, 4:] & 15) | (offsets[:, 4:] & 15) << 4
    return np.concatenate([_bytes(d), _bytes(dmin), first, second, both, packed], axis=1).astype(np.uint8)


def _q6_k(blocks: Array) -> Array:
    groups = blocks.reshape(-1, 16, 16)
    scales = np.abs(groups).max(axis=2) / 31
    d = _half(scales.max(axis=1, keepdims=True) / 127)
    factors = _rounded(scales / _nonzero(d), 127)
    items = np.clip(np.rint(groups / _nonzero((d * factors)[:, :, None])), -32, 31).astype(np.int32) + 32
    halves = items.reshape(-1, 2, 4, 32).astype(np.uint8)
    low = np.concatenate([halves[:, :, :2] & 15 | (halves[:, :, 2:] & 15) << 4], axis=2).reshape(-1, 128)
    high = (halves >> 4 << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(axis=2, dtype=np.uint8).reshape(-1, 64)
    return np.concatenate([low, high, factors.astype(np.uint8), _bytes(d)], axis=1)


def _rounded(values: Array, largest: int) -> Array:
    return np.clip(np.rint(values), 0, largest).astype(np.uint8)


def _nonzero(values: Array) -> Array:
    return np.where(values == 0, np.float32(1), values)


def _half(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float32)


def _bytes(halves: Array) -> Array:
    return halves.astype(np.float16).view(np.uint8)
