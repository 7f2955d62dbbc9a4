"""Quantized blocks of GGUF in MLX's own packing: exactly where MLX has a form for them, the rest in 8 bits.

MLX's affine form is scale * integer + bias for groups of 32 items. Groups of 16 with scales of their own (Q2_K, Q6_K)
have no such form: their values are rounded to 8 bits over groups of 32, which docs/gguf.md measures. Q3_K's groups of
16 differ in whole factors only, and IQ4's codes stand for whole numbers: these become 8 bits without any loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.models.gguf.blocks import Bytes, Floats, Integers, dequantize, q3_k_integers, read_groups

GROUP_SIZE = 32


class PackedForm(NamedTuple):
    """How MLX holds a type: bits of an item, and its mode of quantization."""

    bits: int
    mode: str = "affine"


class PackedBlocks(NamedTuple):
    """MLX's arrays of N blocks: words (N, items * bits / 32), scales and biases (N, items / 32)."""

    words: npt.NDArray[np.uint32]
    scales: Floats | Bytes  # bytes are exponents, of mxfp4
    biases: Floats | None


PACKED_FORMS: Mapping[str, PackedForm] = {
    "Q4_0": PackedForm(4),
    "Q4_1": PackedForm(4),
    "Q5_0": PackedForm(5),
    "Q5_1": PackedForm(5),
    "Q8_0": PackedForm(8),
    "Q2_K": PackedForm(8),
    "Q3_K": PackedForm(8),
    "Q4_K": PackedForm(4),
    "Q5_K": PackedForm(5),
    "Q6_K": PackedForm(8),
    "IQ4_NL": PackedForm(8),
    "IQ4_XS": PackedForm(8),
    "MXFP4": PackedForm(4, "mxfp4"),
}
# What the smallest integer of a type is; MLX's integers begin at 0.
_LOWEST: Mapping[str, int] = {"Q4_0": -8, "Q5_0": -16, "Q8_0": -128, "IQ4_NL": -128, "IQ4_XS": -128}
_ROUNDED = frozenset({"Q2_K", "Q6_K"})


def pack(kind: str, blocks: Bytes) -> PackedBlocks:
    """The blocks (N, bytes) of a quantized type in the form that PACKED_FORMS names; scales in float32."""
    bits, mode = PACKED_FORMS[kind]
    if mode == "mxfp4":
        return PackedBlocks(_pack_bits(_codes(blocks), bits), np.ascontiguousarray(blocks[:, :1]), None)
    scales, integers, biases = _affine(kind, blocks)
    return PackedBlocks(_pack_bits(integers, bits), scales, biases)


def _affine(kind: str, blocks: Bytes) -> tuple[Floats, Integers, Floats]:
    if kind in _ROUNDED:
        return _rounded(dequantize(kind, blocks))
    if kind == "Q3_K":
        return _whole_q3_k(blocks)
    scales, integers, minima = read_groups(kind, blocks)
    lowest = _LOWEST.get(kind, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        biases = scales * np.float32(lowest) if minima is None else -minima
    return scales[:, :, 0], integers - lowest, biases[:, :, 0]


def _whole_q3_k(blocks: Bytes) -> tuple[Floats, Integers, Floats]:
    """One scale for all 256 items: -integer * factor lies between -128 and 124."""
    integers, factors = q3_k_integers(blocks)
    whole = (-integers * factors[:, :, None]).reshape(len(blocks), -1, GROUP_SIZE)
    scales = -np.ascontiguousarray(blocks[:, 108:]).view(np.float16).astype(np.float32)
    scales = np.repeat(scales, whole.shape[1], axis=1)
    return scales, whole + 128, scales * np.float32(-128)


def _rounded(values: Floats) -> tuple[Floats, Integers, Floats]:
    """The nearest of 256 steps between the smallest and the largest value of each 32."""
    groups = values.reshape(len(values), -1, GROUP_SIZE)
    with np.errstate(over="ignore", invalid="ignore"):
        low = groups.min(axis=2, keepdims=True)
        scales = (groups.max(axis=2, keepdims=True) - low) / np.float32(255)
        steps = np.rint((groups - low) / np.where(scales > 0, scales, np.float32(1)))
        integers = np.nan_to_num(steps).astype(np.int16)
    return scales[:, :, 0], integers, low[:, :, 0]


def _codes(blocks: Bytes) -> Integers:
    """The 4-bit codes of MXFP4 (N, 1, 32)."""
    stored = blocks[:, 1:]
    return np.concatenate([stored & 15, stored >> 4], axis=1).astype(np.int16)[:, None, :]


def _pack_bits(integers: Integers, bits: int) -> npt.NDArray[np.uint32]:
    """The lowest bits of each item, one item after the other, from the lowest bit of the lowest byte on."""
    items = integers.reshape(len(integers), -1).astype(np.uint8)
    if bits == 8:
        return items.view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(items[:, 0::2] | items[:, 1::2] << 4).view(np.uint32)
    eights = items.reshape(len(items), -1, 8).astype(np.uint64)
    together = np.bitwise_or.reduce(eights << np.arange(0, 8 * bits, bits, dtype=np.uint64), axis=2)
    used = together[:, :, None].view(np.uint8)[:, :, :bits]
    return np.ascontiguousarray(used.reshape(len(items), -1)).view(np.uint32)
