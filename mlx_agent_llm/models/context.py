"""How long a model's context is, by its files alone: nothing is loaded, and nothing is asked of the network."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.directory import read_context_length
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.model import read_gguf_context
from mlx_agent_llm.models.source import find_demo, find_in_cache


def context_length(name: str) -> int | None:
    """The context of a model that is on this machine; None for one that is not, or cannot be read."""
    path = _find(name)
    try:
        return None if path is None else _read(path, os.stat(path).st_mtime_ns)
    except ModelLoadError:
        return None  # loading it says why


def _find(name: str) -> Path | None:
    if name == "demo":
        return find_demo()
    path = Path(os.path.expanduser(name))
    return path if os.path.exists(path) else find_in_cache(name)


@lru_cache(maxsize=64)
def _read(path: Path, modified_at: int) -> int | None:
    """A GGUF file's vocabulary stands before its end: reading past it takes a tenth of a second."""
    return read_gguf_context(read_gguf(path)) if path.is_file() else read_context_length(path)
