"""What people ask of a tier's folder: what is in it, whether it is whole, and to make it smaller."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from mlx_agent_llm.core.kv.tier.manifest import MANIFEST_NAME, Manifest, read_manifest
from mlx_agent_llm.core.kv.tier.segment import DamagedSegmentError, Segment, read_entries, read_table
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.errors import KVTierError


class ModelUsage(NamedTuple):
    """What a tier holds of one model; which prompts it is of nobody can tell."""

    fingerprint: str
    description: str
    num_segments: int
    num_entries: int
    num_bytes: int


def usage_of(path: Path) -> list[ModelUsage]:
    """What a folder holds, by models, the largest first; KVTierError where it holds no tier."""
    manifest = _manifest(path)
    segments, num_entries, num_bytes = Counter[str](), Counter[str](), Counter[str]()
    for name in manifest.last_used:
        segment = _table(path / name)
        if isinstance(segment, Segment):
            model = segment.model.hex()
            segments[model] += 1
            num_entries[model] += len(segment.entries)
            num_bytes[model] += segment.num_bytes
    return [
        ModelUsage(model, manifest.models.get(model, ""), segments[model], num_entries[model], count)
        for model, count in num_bytes.most_common()
    ]


def faults_in(path: Path) -> list[str]:
    """What is wrong in a folder, read to its last byte; KVTierError where it holds no tier."""
    return [fault for name in _manifest(path).last_used for fault in _faults_of(path / name)]


def prune(path: Path, max_bytes: int) -> int:
    """Evict until no more is left than max_bytes; the bytes that were given up.

    KVTierError where the folder holds no tier, or another process writes it.
    """
    _manifest(path)
    store = TierStore(path, max_bytes, bytes(16), "")
    try:
        if not store.is_writer:
            raise KVTierError(f"{path} is written by another process, which has to end first")
        before = store.num_bytes
        store.make_room(0)
        return before - store.num_bytes
    finally:
        store.close()


def _manifest(path: Path) -> Manifest:
    manifest = read_manifest(path)
    if manifest is None:
        is_there = (path / MANIFEST_NAME).exists()
        raise KVTierError(f"{path}: its manifest is damaged" if is_there else f"{path} holds no KV")
    return manifest


def _table(path: Path) -> Segment | str:
    try:
        return read_table(path)
    except (OSError, DamagedSegmentError) as error:
        return str(error)


def _faults_of(path: Path) -> list[str]:
    segment = _table(path)
    if isinstance(segment, str):
        return [segment]
    faults = list[str]()
    for entry in segment.entries:
        try:
            read_entries(segment, [entry])
        except (OSError, DamagedSegmentError) as error:
            faults.append(str(error))
    return faults
