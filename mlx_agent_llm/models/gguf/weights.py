"""The tensors of a checked GGUF file as MLX arrays, quantized ones in MLX's own packing.

mx.load also reads GGUF, but it opens the file for writing (an installed, read-only file fails) and follows sizes in
the header without checks (a damaged header, or 64-bit floats in the metadata, end the process). So the blocks are read
here, through a read-only map.
"""

from __future__ import annotations

import sys

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.file import BLOCKS, GGUFFile, TensorInfo

GROUP_SIZE = 32
BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}

Bytes = npt.NDArray[np.uint8]
Half = npt.NDArray[np.float16]


def check_types(gguf: GGUFFile) -> None:
    """Raise an UnsupportedModelError that names the quantization unless every tensor can be read."""
    for tensor in gguf.tensors.values():
        if tensor.type not in BLOCKS:
            raise UnsupportedModelError(
                f"{gguf.path}: tensor {tensor.name!r} is quantized as {tensor.type}, "
                f"which is not supported: {', '.join(BLOCKS)} are"
            )


def read_tensors(gguf: GGUFFile) -> dict[str, mx.array]:
    """Read all tensors by name; a quantized NAME.weight comes as NAME.weight (uint32), NAME.scales and NAME.biases."""
    assert sys.byteorder == "little", "MLX runs on little-endian machines only"
    check_types(gguf)
    data = np.memmap(gguf.path, np.uint8, mode="r")
    arrays = dict[str, mx.array]()
    for tensor in gguf.tensors.values():
        raw = np.asarray(data[tensor.offset : tensor.offset + tensor.num_bytes])
        if tensor.type in BITS:
            stem = tensor.name.removesuffix(".weight")
            names = (f"{stem}.weight", f"{stem}.scales", f"{stem}.biases")
            arrays.update(zip(names, _read_quantized(tensor, raw), strict=True))
        else:
            arrays[tensor.name] = _read_plain(tensor, raw)
    return arrays


def _read_plain(tensor: TensorInfo, raw: Bytes) -> mx.array:
    if tensor.type == "BF16":
        return mx.array(raw.view(np.uint16).reshape(tensor.shape)).view(mx.bfloat16)
    dtype = np.float32 if tensor.type == "F32" else np.float16
    return mx.array(raw.view(dtype).reshape(tensor.shape))


def _read_quantized(tensor: TensorInfo, raw: Bytes) -> tuple[mx.array, mx.array, mx.array]:
    """The weight (..., items * bits / 32), scales and biases (..., items / 32): scale * integer + bias."""
    blocks = raw.reshape(-1, BLOCKS[tensor.type][1])
    scales = _half(blocks[:, :2])
    biases = _biases(tensor, blocks, scales)
    stored = blocks[:, 4 if tensor.type == "Q4_1" else 2 :]
    packed = stored ^ np.uint8(0x80) if tensor.type == "Q8_0" else _pack_nibbles(stored)
    rows = tensor.shape[:-1]
    words = np.ascontiguousarray(packed).view(np.uint32).reshape(*rows, -1)
    return mx.array(words), mx.array(scales.reshape(*rows, -1)), mx.array(biases.reshape(*rows, -1))


def _biases(tensor: TensorInfo, blocks: Bytes, scales: Half) -> Half:
    """Q4_0 stores value / scale + 8, Q4_1 its own bias; Q8_0's signed bytes move by 128 into MLX's unsigned range."""
    if tensor.type == "Q4_1":
        biases = _half(blocks[:, 2:4])
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            biases = np.float16(-8 if tensor.type == "Q4_0" else -128) * scales
    if not np.isfinite(biases).all() or not np.isfinite(scales).all():
        raise ModelLoadError(f"tensor {tensor.name!r} holds scales that are not finite or too large for float16")
    return biases


def _half(two_bytes: Bytes) -> Half:
    return np.ascontiguousarray(two_bytes).view(np.float16)


def _pack_nibbles(stored: Bytes) -> Bytes:
    """Reorder a block: its byte j holds items j and j + 16, MLX wants items 2k and 2k + 1 in byte k."""
    items = np.concatenate([stored & 0x0F, stored >> 4], axis=1)
    packed: Bytes = items[:, 0::2] | (items[:, 1::2] << 4)
    return packed
