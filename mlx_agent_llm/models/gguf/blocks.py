"""The quantized blocks of GGUF as whole numbers with scales, and the exact float32 values that they stand for.

Formats: ggml's reference implementation. Knows neither files nor MLX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int16]

# Items and bytes of one block, of the tensor types that can be loaded.
BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
    "MXFP4": (32, 17),
}
PLAIN_TYPES = frozenset({"F32", "F16", "BF16"})
_IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int16
)  # of the 16 codes of IQ4_NL and IQ4_XS
_E2M1_DOUBLES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.int16)


class Groups(NamedTuple):
    """Groups of items that share a scale: an item's value is scale * integer - minimum."""

    scales: Floats  # (blocks, groups, 1)
    integers: Integers  # (blocks, groups, items of a group)
    minima: Floats | None = None  # (blocks, groups, 1); None is 0


def dequantize(kind: str, blocks: Bytes) -> Floats:
    """The values of blocks (N, bytes) as (N, items): each operation in float32, in ggml's order."""
    scales, integers, minima = read_groups(kind, blocks)
    with np.errstate(over="ignore", invalid="ignore"):  # of scales that are not finite: whoever reads a file checks
        values = scales * integers.astype(np.float32)
        values = values if minima is None else values - minima
    return values.reshape(len(blocks), -1)


def read_groups(kind: str, blocks: Bytes) -> Groups:
    """Take the blocks (N, bytes) of a quantized type apart."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _READERS[kind](blocks)


def _q4_0(blocks: Bytes) -> Groups:
    return Groups(_halves(blocks[:, :2]), _grouped(_nibbles(blocks[:, 2:], 16) - 8, 1))


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(_halves(blocks[:, :2]), _grouped(_nibbles(blocks[:, 4:], 16), 1), -_halves(blocks[:, 2:4]))


def _q5_0(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[:, 6:], 16) + 16 * _bits(blocks[:, 2:6])
    return Groups(_halves(blocks[:, :2]), _grouped(integers - 16, 1))


def _q5_1(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[:, 8:], 16) + 16 * _bits(blocks[:, 4:8])
    return Groups(_halves(blocks[:, :2]), _grouped(integers, 1), -_halves(blocks[:, 2:4]))


def _q8_0(blocks: Bytes) -> Groups:
    return Groups(_halves(blocks[:, :2]), _grouped(blocks[:, 2:].view(np.int8).astype(np.int16), 1))


def _q2_k(blocks: Bytes) -> Groups:
    packed, quants = blocks[:, :16], blocks[:, 16:80]
    scales = _halves(blocks[:, 80:82]) * (packed & 15)[:, :, None]
    minima = _halves(blocks[:, 82:84]) * (packed >> 4)[:, :, None]
    return Groups(scales, _grouped(_shifted(quants, 32, (0, 2, 4, 6)) & 3, 16), minima)


def _q3_k(blocks: Bytes) -> Groups:
    integers, scales = q3_k_integers(blocks)
    return Groups(_halves(blocks[:, 108:]) * scales[:, :, None].astype(np.float32), integers)


def q3_k_integers(blocks: Bytes) -> tuple[Integers, Integers]:
    """The integers -4..3 (N, 16, 16) of Q3_K and the factors -32..31 (N, 16) of their groups."""
    high, low, packed = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    missing_bit = 1 - (_shifted(high, 32, range(8)) & 1)
    integers = (_shifted(low, 32, (0, 2, 4, 6)) & 3) - 4 * missing_bit
    factors = _nibbles(packed[:, :8], 8) + 16 * (_shifted(packed[:, 8:], 4, (0, 2, 4, 6)) & 3)
    return _grouped(integers, 16), factors - 32


def _q4_k(blocks: Bytes) -> Groups:
    scales, minima = _six_bit_scales(blocks)
    return Groups(scales, _grouped(_nibbles(blocks[:, 16:], 32), 8), minima)


def _q5_k(blocks: Bytes) -> Groups:
    scales, minima = _six_bit_scales(blocks)
    high = _shifted(blocks[:, 16:48], 32, range(8)) & 1
    return Groups(scales, _grouped(_nibbles(blocks[:, 48:], 32) + 16 * high, 8), minima)


def _q6_k(blocks: Bytes) -> Groups:
    low, high = blocks[:, :128], blocks[:, 128:192]
    integers = _nibbles(low, 64) + 16 * (_shifted(high, 32, (0, 2, 4, 6)) & 3) - 32
    scales = _halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)[:, :, None].astype(np.float32)
    return Groups(scales, _grouped(integers, 16))


def _iq4_nl(blocks: Bytes) -> Groups:
    return Groups(_halves(blocks[:, :2]), _grouped(_IQ4_VALUES[_nibbles(blocks[:, 2:], 16)], 1))


def _iq4_xs(blocks: Bytes) -> Groups:
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = (blocks[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(len(blocks), 8)
    factors = (low + 16 * high.astype(np.int16) - 32).astype(np.float32)
    integers = _IQ4_VALUES[_nibbles(blocks[:, 8:], 16)]
    return Groups(_halves(blocks[:, :2]) * factors[:, :, None], _grouped(integers, 8))


def _mxfp4(blocks: Bytes) -> Groups:
    scales = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return Groups(scales[:, :, None], _grouped(_E2M1_DOUBLES[_nibbles(blocks[:, 1:], 16)], 1))


_READERS: Mapping[str, Callable[[Bytes], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}


def _six_bit_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """The scales and minima of the 8 groups of Q4_K and Q5_K: four are whole in a byte, four lie in parts of two."""
    first, second, both = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    factors = np.concatenate([first & 63, (both & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (both >> 4) | (second >> 6 << 4)], axis=1)
    return _halves(blocks[:, :2]) * factors[:, :, None], _halves(blocks[:, 2:4]) * minima[:, :, None]


def _halves(two_bytes: Bytes) -> Floats:
    """One float16 a block, as (N, 1, 1) in float32."""
    return np.ascontiguousarray(two_bytes).view(np.float16).astype(np.float32)[:, :, None]


def _nibbles(stored: Bytes, size: int) -> Integers:
    """Each `size` bytes hold as many items in their low halves, then as many in their high halves."""
    return _shifted(stored, size, (0, 4)) & 15


def _shifted(stored: Bytes, size: int, shifts: range | tuple[int, ...]) -> Integers:
    """Each `size` bytes once for each shift, one after the other: (N, bytes) becomes (N, bytes * shifts)."""
    pieces = stored.reshape(len(stored), -1, 1, size) >> np.array(shifts, np.uint8).reshape(-1, 1)
    return pieces.reshape(len(stored), -1).astype(np.int16)


def _bits(stored: Bytes) -> Integers:
    return np.unpackbits(stored, axis=1, bitorder="little").astype(np.int16)


def _grouped(integers: Integers, num_groups: int) -> Integers:
    return integers.astype(np.int16, copy=False).reshape(len(integers), num_groups, -1)
