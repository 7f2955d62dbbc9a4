"""The tensors of a checked GGUF file as MLX arrays: quantized ones in MLX's own packing, or expanded.

mx.load also reads GGUF, but it opens the file for writing (an installed, read-only file fails) and follows sizes in
the header without checks (a damaged header, or 64-bit floats in the metadata, end the process). So the blocks are read
here, through a read-only map, a few rows at a time: beside the arrays that are kept stands one piece of a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.blocks import BLOCKS, PLAIN_TYPES, Bytes, dequantize
from mlx_agent_llm.models.gguf.file import GGUFFile, TensorInfo
from mlx_agent_llm.models.gguf.packing import GROUP_SIZE, PACKED_FORMS, PackedBlocks, pack

_ITEMS_AT_ONCE = 2**22

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Place:
    """Where a tensor goes: the name and shape of the model's array, and how the file's order and values differ from it.

    rows, columns: for each row (column) of the model the one of the file. values: from the file's values to the
    model's, of a tensor that is not packed. is_packed: whether quantized blocks stay packed.
    """

    name: str
    shape: tuple[int, ...]
    rows: Order | None = None
    columns: Order | None = None
    values: Callable[[mx.array], mx.array] | None = None
    is_packed: bool = False


def check_types(gguf: GGUFFile) -> None:
    """Raise an UnsupportedModelError that names the quantization unless every tensor can be read."""
    for tensor in gguf.tensors.values():
        if tensor.type not in BLOCKS:
            raise UnsupportedModelError(
                f"{gguf.path}: tensor {tensor.name!r} is quantized as {tensor.type}, "
                f"which is not supported: {', '.join(BLOCKS)} are"
            )


def read_array(tensor: TensorInfo, place: Place, dtype: mx.Dtype) -> dict[str, mx.array]:
    """The model's arrays of one tensor: NAME, and of a packed NAME.weight its NAME.scales and NAME.biases too.

    dtype: of expanded values and of scales; what the file holds as floating-point numbers keeps its own type.
    """
    assert sys.byteorder == "little", "MLX runs on little-endian machines only"
    if place.is_packed:
        return _read_packed(tensor, place, dtype)
    array = _read_plain(tensor, place) if tensor.type in PLAIN_TYPES else _read_expanded(tensor, place, dtype)
    if place.columns is not None:
        array = array[:, mx.array(place.columns)]
    if place.values is not None:
        array = place.values(array.astype(mx.float32))
    return {place.name: array.reshape(place.shape)}


def read_floats(tensor: TensorInfo) -> list[float]:
    """The numbers of a small tensor that belongs into a model's configuration."""
    place = Place(tensor.name, tensor.shape)
    [array] = read_array(tensor, place, mx.float32).values()
    return array.astype(mx.float32).flatten().tolist()  # type: ignore[return-value]


def _read_plain(tensor: TensorInfo, place: Place) -> mx.array:
    dtype = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[tensor.type]
    array = mx.array(_ordered(tensor, place).view(dtype))
    return array.view(mx.bfloat16) if tensor.type == "BF16" else array


def _read_expanded(tensor: TensorInfo, place: Place, dtype: mx.Dtype) -> mx.array:
    rows = _ordered(tensor, place)
    values = np.empty((len(rows), tensor.shape[-1]), np.float32)
    for piece, blocks in _pieces(tensor, rows):
        values[piece] = dequantize(tensor.type, blocks).reshape(-1, tensor.shape[-1])
        _check_finite(tensor, values[piece])
    return mx.array(values).astype(dtype)


def _read_packed(tensor: TensorInfo, place: Place, dtype: mx.Dtype) -> dict[str, mx.array]:
    rows, width = _ordered(tensor, place), tensor.shape[-1]
    bits, mode = PACKED_FORMS[tensor.type]
    words = np.empty((len(rows), width * bits // 32), np.uint32)
    scale_type = np.uint8 if mode == "mxfp4" else np.float16 if dtype == mx.float16 else np.float32
    scales = np.empty((len(rows), width // GROUP_SIZE), scale_type)
    biases = np.empty((len(rows), width // GROUP_SIZE), scale_type) if mode == "affine" else None
    for piece, blocks in _pieces(tensor, rows):
        _keep(tensor, pack(tensor.type, blocks), words[piece], scales[piece], None if biases is None else biases[piece])
    arrays: dict[str, Array | None] = {"weight": words, "scales": scales, "biases": biases}
    stem = place.name.removesuffix(".weight")
    return {
        f"{stem}.{part}": _placed(array, place, dtype if array.dtype.kind == "f" else None)
        for part, array in arrays.items()
        if array is not None
    }


def _keep(tensor: TensorInfo, packed: PackedBlocks, words: Array, scales: Array, biases: Array | None) -> None:
    words[:] = packed.words.reshape(words.shape)
    with np.errstate(over="ignore"):
        scales[:] = packed.scales.reshape(scales.shape)
        if biases is not None and packed.biases is not None:
            biases[:] = packed.biases.reshape(biases.shape)
    _check_finite(tensor, scales)
    _check_finite(tensor, scales if biases is None else biases)


def _placed(array: Array, place: Place, dtype: mx.Dtype | None) -> mx.array:
    if place.columns is not None:
        groups = place.columns[::GROUP_SIZE] // GROUP_SIZE
        array = array.reshape(len(array), len(groups), -1)[:, groups]
    placed = mx.array(array.reshape(*place.shape[:-1], -1))
    return placed if dtype is None else placed.astype(dtype)


def _ordered(tensor: TensorInfo, place: Place) -> Bytes:
    """The bytes of a tensor, a row of its last dimension each, in the model's order of rows."""
    data = np.memmap(tensor.path, np.uint8, mode="r", offset=tensor.offset, shape=(tensor.num_bytes,))
    num_rows = np.prod(tensor.shape[:-1], dtype=np.intp)
    if len(tensor.shape) == 1 and place.rows is not None:
        num_rows = np.intp(tensor.shape[0])
    rows: Bytes = np.asarray(data).reshape(num_rows, -1)
    return rows if place.rows is None else rows[place.rows]


def _pieces(tensor: TensorInfo, rows: Bytes) -> Iterator[tuple[slice, Bytes]]:
    """A few rows at a time, as blocks (N, bytes)."""
    at_once = max(1, _ITEMS_AT_ONCE // tensor.shape[-1])
    for start in range(0, len(rows), at_once):
        piece = slice(start, min(start + at_once, len(rows)))
        yield piece, np.ascontiguousarray(rows[piece]).reshape(-1, BLOCKS[tensor.type][1])


def _check_finite(tensor: TensorInfo, numbers: Array) -> None:
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ModelLoadError(
            f"tensor {tensor.name!r} holds scales that are not finite or too large for {numbers.dtype}"
        )
