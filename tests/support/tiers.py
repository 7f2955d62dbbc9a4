"""Stores of made-up entries, whose bytes follow from their keys."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlx_agent_llm.core.kv.tier.catalogue import ROOT
from mlx_agent_llm.core.kv.tier.segment import Bytes, Part
from mlx_agent_llm.core.kv.tier.store import TierStore

MODEL = b"m" * 16


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
