"""A model in several GGUF files, NAME-00001-of-00003.gguf and following, as one header."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.gguf.file import GGUFFile, TensorInfo, read_gguf

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


def read_whole(path: Path) -> GGUFFile:
    """Read the header at `path` and, where it is one part of a split model, those of all its parts.

    A missing part, and one that does not belong to the others, is a ModelLoadError. The metadata is the first part's.
    """
    gguf = read_gguf(path)
    count = gguf.get("split.count", int) or 1
    if count == 1:
        return gguf
    parts = [_read_part(part, index, count) for index, part in enumerate(_paths(path, count))]
    tensors = dict[str, TensorInfo]()
    for part in parts:
        for name, tensor in part.tensors.items():
            if name in tensors:
                raise ModelLoadError(f"{part.path}: tensor {name!r} is in {tensors[name].path.name} too")
            tensors[name] = tensor
    wanted = parts[0].get("split.tensors.count", int)
    if wanted is not None and wanted != len(tensors):
        raise ModelLoadError(f"{path}: split.tensors.count={wanted}, but the parts hold {len(tensors)} tensors")
    return GGUFFile(parts[0].path, parts[0].metadata, tensors)


def _paths(path: Path, count: int) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelLoadError(
            f"{path}: one of {count} parts, which must be named NAME-00001-of-{count:05}.gguf and following"
        )
    return [path.with_name(f"{match[1]}-{index:05}-of-{count:05}{path.suffix}") for index in range(1, count + 1)]


def _read_part(path: Path, index: int, count: int) -> GGUFFile:
    if not path.is_file():
        raise ModelLoadError(f"{path}: part {index + 1} of {count} is missing")
    part = read_gguf(path)
    found = (part.get("split.no", int), part.get("split.count", int))
    if found != (index, count):
        raise ModelLoadError(f"{path}: split.no and split.count are {found}, but must be {(index, count)}")
    return part
