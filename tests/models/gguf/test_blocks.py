"""Every quantized type against the reference in numpy that the format's own package brings."""

from collections.abc import Mapping

import gguf
import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlx_agent_llm.models.gguf.blocks import BLOCKS, PLAIN_TYPES, dequantize
from mlx_agent_llm.models.gguf.packing import GROUP_SIZE, PACKED_FORMS, pack

QUANTIZED = sorted(BLOCKS.keys() - PLAIN_TYPES)
# Where the float16 scales of a block lie.
HALVES: Mapping[str, tuple[int, ...]] = {
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "MXFP4": (),
}
# Of the values that two types are rounded to: the root mean square of the error over that of the values.
ERRORS = {"Q2_K": 0.0025, "Q6_K": 0.005}


def random_blocks(kind: str, count: int = 400) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(len(kind))
    blocks = random.integers(0, 256, (count, BLOCKS[kind][1]), dtype=np.uint8)
    for offset in HALVES.get(kind, (0,)):
        blocks[:, offset : offset + 2] = random.normal(0, 0.01, (count, 1)).astype(np.float16).view(np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = random.integers(90, 160, count)
    return blocks


def reference(kind: str, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])  # type: ignore[no-any-return]


def unpacked(kind: str, blocks: npt.NDArray[np.uint8], dtype: mx.Dtype) -> npt.NDArray[np.float32]:
    words, scales, biases = pack(kind, blocks)
    bits, mode = PACKED_FORMS[kind]
    parts = [mx.array(part) if part.dtype == np.uint8 else mx.array(part).astype(dtype).astype(mx.float32)
             for part in (scales, biases) if part is not None]  # fmt: skip
    values = mx.dequantize(mx.array(words), *parts, group_size=GROUP_SIZE, bits=bits, mode=mode)
    return np.array(values.astype(mx.float32))


def relative_error(values: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((values - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("kind", QUANTIZED)
def test_values_are_those_of_the_reference_bit_for_bit(kind: str) -> None:
    blocks = random_blocks(kind)
    np.testing.assert_array_equal(dequantize(kind, blocks).view(np.uint32), reference(kind, blocks).view(np.uint32))


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZED if kind not in ERRORS])
def test_what_mlx_can_hold_is_packed_without_any_loss(kind: str) -> None:
    blocks = random_blocks(kind)
    np.testing.assert_array_equal(unpacked(kind, blocks, mx.float32), reference(kind, blocks))


@pytest.mark.parametrize("kind", ERRORS)
def test_groups_of_16_are_rounded_to_8_bits(kind: str) -> None:
    blocks = random_blocks(kind)
    assert 0 < relative_error(unpacked(kind, blocks, mx.float32), reference(kind, blocks)) < ERRORS[kind]


@pytest.mark.parametrize("kind", QUANTIZED)
def test_scales_in_float16_change_little(kind: str) -> None:
    blocks = random_blocks(kind)
    error = relative_error(unpacked(kind, blocks, mx.float16), unpacked(kind, blocks, mx.float32))
    assert error < 1e-3


@pytest.mark.parametrize("kind", QUANTIZED)
def test_blocks_have_the_sizes_of_the_format(kind: str) -> None:
    assert BLOCKS[kind] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
