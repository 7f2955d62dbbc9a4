"""The header of a GGUF file, read and checked against the size of the file; knows no architecture.

Every count, length, offset and extent is compared with the bytes that exist before it is used, so that a truncated or
damaged file is a ModelLoadError here and never a fault further on. Format: the GGUF specification of ggml, versions 2
and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.blocks import BLOCKS

T = TypeVar("T")
Value = bool | int | float | str | list[Any]

_TENSOR_TYPES: Mapping[int, str] = dict(
    enumerate(
        "F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S "
        "IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 "
        "IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4 NVFP4".split()
    )
)
_SCALARS: Mapping[int, str] = dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?"])) | {10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: shape with the slowest dimension first, offset and num_bytes in the file at `path`."""

    path: Path
    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class GGUFFile:
    """A checked header; tensors of a type that is not in BLOCKS have num_bytes 0 and cannot be read."""

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of `key`, None when it is absent; a value of another type is a ModelLoadError."""
        value = self.metadata.get(key)
        if value is None:
            return None
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            shown = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
            raise ModelLoadError(f"{self.path}: {key} is {shown}, but must be of type {kind.__name__}")
        return kind(value)  # type: ignore[call-arg]

    def require(self, key: str, kind: type[T]) -> T:
        """The value of `key`; an absent one is a ModelLoadError too."""
        value = self.get(key, kind)
        if value is None:
            raise ModelLoadError(f"{self.path}: the metadata has no {key}")
        return value

    def require_texts(self, key: str) -> list[str]:
        """The value of `key`, which must be a list of strings."""
        value = self.require(key, list)
        if not all(isinstance(item, str) for item in value):
            raise ModelLoadError(f"{self.path}: {key} must be a list of strings")
        return value


def read_gguf(path: Path) -> GGUFFile:
    """Read and check the header of the file at `path`; nothing of the tensors' data is read."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelLoadError(f"{path}: the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).read_file()
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Reader:
    """A cursor over the header that refuses to leave the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.position = 0
        self.alignment = 32

    def read_file(self) -> GGUFFile:
        if self.take(4, "magic") != b"GGUF":
            raise ModelLoadError(f"{self.path}: not a GGUF file: it does not begin with b'GGUF'")
        version = self.number("I", "version")
        if version not in (2, 3):
            raise UnsupportedModelError(f"{self.path}: GGUF version {version} is not supported: 2 and 3 are")
        num_tensors = self.count("number of tensors", smallest=24)
        num_entries = self.count("number of metadata entries", smallest=13)
        metadata = dict[str, Value]()
        for _ in range(num_entries):
            self.read_entry(metadata)
        tensors = [self.read_tensor() for _ in range(num_tensors)]
        return GGUFFile(self.path, metadata, self.place(tensors))

    def read_entry(self, metadata: dict[str, Value]) -> None:
        key = self.text("a metadata key")
        if key in metadata:
            raise self.corrupt(f"the metadata key {key!r} appears twice")
        type_id = self.number("I", f"type of {key}")
        metadata[key] = self.value(type_id, key)
        if key == "general.alignment":
            alignment = metadata[key]
            if type_id != _UINT32 or not isinstance(alignment, int) or alignment < 8 or alignment % 8:
                raise self.corrupt(f"general.alignment={alignment!r} must be an unsigned multiple of 8")
            self.alignment = alignment

    def value(self, type_id: int, key: str) -> Value:
        if type_id == _STRING:
            return self.text(key)
        if type_id == _ARRAY:
            return self.array(key)
        if type_id not in _SCALARS:
            raise self.corrupt(f"{key} has the unknown value type {type_id}")
        value: bool | int | float = self.number(_SCALARS[type_id], key)
        return value

    def array(self, key: str) -> list[Any]:
        type_id = self.number("I", f"element type of {key}")
        if type_id == _STRING:
            return [self.text(key) for _ in range(self.count(f"length of {key}", smallest=8))]
        if type_id not in _SCALARS:
            raise self.corrupt(f"{key} is an array of the unsupported value type {type_id}")
        letter = _SCALARS[type_id]
        size = struct.calcsize(letter)
        length = self.count(f"length of {key}", smallest=size)
        return list(struct.unpack(f"<{length}{letter}", self.take(length * size, key)))

    def read_tensor(self) -> TensorInfo:
        """Read one tensor info; its offset still counts from the start of the data section."""
        name = self.text("a tensor's name")
        num_dimensions = self.number("I", f"number of dimensions of {name}")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise self.corrupt(f"tensor {name!r} has {num_dimensions} dimensions, not 1 to {_MAX_DIMENSIONS}")
        shape = tuple(self.number("Q", f"dimensions of {name}") for _ in range(num_dimensions))[::-1]
        if 0 in shape:
            raise self.corrupt(f"tensor {name!r} is empty: its shape is {shape}")
        type_id = self.number("I", f"type of {name}")
        if type_id not in _TENSOR_TYPES:
            raise self.corrupt(f"tensor {name!r} has the unknown type {type_id}")
        offset = self.number("Q", f"offset of {name}")
        return TensorInfo(self.path, name, shape, _TENSOR_TYPES[type_id], offset, self.num_bytes(name, shape, type_id))

    def num_bytes(self, name: str, shape: tuple[int, ...], type_id: int) -> int:
        block = BLOCKS.get(_TENSOR_TYPES[type_id])
        if block is None:
            return 0
        items, size = block
        if shape[-1] % items:
            raise self.corrupt(f"tensor {name!r} has rows of {shape[-1]}, not a multiple of {items}")
        return prod(shape) // items * size

    def place(self, tensors: list[TensorInfo]) -> dict[str, TensorInfo]:
        """Turn offsets into positions in the file and check that every tensor ends inside it."""
        start = -(-self.position // self.alignment) * self.alignment
        placed = dict[str, TensorInfo]()
        for tensor in tensors:
            offset = start + tensor.offset
            if tensor.name in placed:
                raise self.corrupt(f"tensor {tensor.name!r} appears twice")
            if tensor.offset % self.alignment:
                raise self.corrupt(f"tensor {tensor.name!r} is not aligned to {self.alignment} bytes")
            if offset + tensor.num_bytes > self.size:
                end = offset + tensor.num_bytes
                raise self.corrupt(f"tensor {tensor.name!r} ends at byte {end}, the file at {self.size}: truncated?")
            placed[tensor.name] = replace(tensor, offset=offset)
        return placed

    def text(self, what: str) -> str:
        raw = self.take(self.count(f"length of {what}", smallest=1), what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.corrupt(f"{what} is not UTF-8") from error

    def count(self, what: str, *, smallest: int) -> int:
        """Read a 64-bit count of things that take at least `smallest` bytes each of what is left of the file."""
        count: int = self.number("Q", what)
        if count * smallest > self.size - self.position:
            raise self.corrupt(f"{what} is {count}, more than the rest of the file can hold: truncated?")
        return count

    def number(self, letter: str, what: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}"), what))[0]

    def take(self, num_bytes: int, what: str) -> bytes:
        end = self.position + num_bytes
        if end > self.size:
            raise self.corrupt(f"it ends inside {what}, at byte {self.size}: truncated?")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def corrupt(self, detail: str) -> ModelLoadError:
        return ModelLoadError(f"{self.path}: damaged GGUF file: {detail}")
