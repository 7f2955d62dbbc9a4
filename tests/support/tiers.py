"""Stores of made-up entries, whose bytes follow from their keys."""

import hashlib
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mlx_agent_llm.core.kv.tier.catalogue import ROOT
from mlx_agent_llm.core.kv.tier.segment import Bytes, Part
from mlx_agent_llm.core.kv.tier.store import TierStore

MODEL = b"m" * 16


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at a path."""
    path.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=path.is_mount())


def open_store(path: Path, max_bytes: int = 2**20, model: bytes = MODEL) -> TierStore:
    return TierStore(path, max_bytes, model, "a model")


def key_of(chain: int, position: int) -> bytes:
    return hashlib.blake2b(f"{chain} {position}".encode(), digest_size=16).digest()


def content_of(key: bytes, length: int = 100) -> Bytes:
    seed = int.from_bytes(key[:8], "little")
    return np.random.default_rng(seed).integers(0, 256, length, np.uint8)


def parts_of(chain: int, positions: Sequence[int], length: int = 100) -> list[Part]:
    return [Part(key_of(chain, i), content_of(key_of(chain, i), length)) for i in positions]


def put(store: TierStore, chain: int, begin: int, end: int, length: int = 100) -> bool:
    """Write positions [begin, end) of a chain."""
    parent = key_of(chain, begin - 1) if begin else ROOT
    return store.put(parent, parts_of(chain, range(begin, end), length))


def is_right(key: bytes, content: Bytes | None) -> bool:
    """Whether it is a miss, or what was written."""
    return content is None or content.tobytes() == content_of(key, len(content)).tobytes()
