"""A check of .safetensors files before MLX reads them: missing data would only be noticed inside a computation."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from mlx_agent_llm.errors import ModelLoadError

_ITEM_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def check_safetensors(path: Path) -> None:
    """Raise a ModelLoadError unless the header is readable and every tensor lies inside the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if size < 8 or header_size > size - 8:
                raise ModelLoadError(f"{path}: damaged safetensors file: {size} bytes cannot hold its header")
            header = _parse_header(path, file.read(header_size))
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(path, name, entry, size - 8 - header_size)


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: damaged safetensors file: its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelLoadError(f"{path}: damaged safetensors file: its header is not a JSON object")
    return header


def _check_entry(path: Path, name: str, entry: Any, available: int) -> None:
    try:
        begin, end = entry["data_offsets"]
        needed = prod(entry["shape"]) * _ITEM_BITS[entry["dtype"]] // 8
        is_inside = 0 <= begin <= end <= available and end - begin == needed
    except (KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"{path}: damaged safetensors file: tensor {name!r} is described by {entry!r}") from error
    if not is_inside:
        raise ModelLoadError(
            f"{path}: damaged safetensors file: tensor {name!r} needs bytes {begin} to {end} of {available}: truncated?"
        )
