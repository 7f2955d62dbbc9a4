"""What has to be read from the disk for a prompt: all that it needs beside what is in memory, the last of it first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.tiering.contents import Kind
from mlx_agent_llm.core.tiering.keys import GroupPools, TierKeys
from mlx_agent_llm.request import Request

PIECE_BYTES = 2**24  # that are read together, and put into the pool by one step beside running requests


class Piece(NamedTuple):
    """Entries of one kind, in the order of the chain."""

    kind: Kind
    indices: Sequence[int]


class Plan(NamedTuple):
    """One prompt's way back up to a border.

    hashes: of its blocks up to there; root: what the first of them follows; num_tokens: that need not be computed.
    pieces: states and windows first, then blocks from the border back to the head, so that what is there by now is of
    use to a request that computes from the head on.
    """

    hashes: Sequence[bytes]
    root: bytes
    num_tokens: int
    pieces: Sequence[Piece]
    num_bytes: int


class Planner:
    """Looks prompts up in memory and on the disk."""

    def __init__(self, kv_manager: KVManager, store: TierStore, keys: TierKeys) -> None:
        self._kv = kv_manager
        self._pools = GroupPools.of(kv_manager).by_kind()
        self._store = store
        self._keys = keys

    def plan(self, request: Request) -> Plan | None:
        """What has to be read for the last border that can be reached; None where that is nothing."""
        hashes = self._reachable(request)
        num_here = next((i for i, one in enumerate(hashes) if self._pools["full"].find(one) is None), len(hashes))
        for border in range(len(hashes), 0, -1):
            missing = self._missing(hashes, border)
            if missing is None:
                continue
            if not missing:
                return None
            num_blocks = border - (num_here if set(self._pools) == {"full"} else 0)
            return Plan(
                hashes[:border],
                self._kv.hashes.before(request, 0),
                num_blocks * self._kv.block_size,
                list(self._pieces(missing, hashes)),
                sum(self._store.length(self._keys.of(kind, hashes[index])) for kind, index in missing),
            )
        return None

    def _reachable(self, request: Request) -> list[bytes]:
        """The hashes of the leading blocks that are in memory or on the disk; one token at least is left."""
        hashes = list[bytes]()
        for index in range((request.num_tokens - 1) // self._kv.block_size):
            if not self._kv.hashes.is_known(request, index):
                break
            block_hash = self._kv.hashes.of(request, index)
            if self._pools["full"].find(block_hash) is None and not self._store.has(self._keys.of("full", block_hash)):
                break
            hashes.append(block_hash)
        return hashes

    def _missing(self, hashes: Sequence[bytes], border: int) -> list[tuple[Kind, int]] | None:
        """What is not in memory of all that a request needs to go on at a border; None where it is nowhere."""
        needed: list[tuple[Kind, int]] = []
        if self._kv.states is not None:
            needed.append(("state", border - 1))
        if self._kv.windows is not None:
            needed += [("window", index) for index in self._kv.windows.seen_after(border)]
        missing = [(kind, index) for kind, index in needed if self._pools[kind].find(hashes[index]) is None]
        if not all(self._store.has(self._keys.of(kind, hashes[index])) for kind, index in missing):
            return None
        full: list[tuple[Kind, int]] = [
            ("full", index) for index in range(border) if self._pools["full"].find(hashes[index]) is None
        ]
        return missing + full

    def _pieces(self, missing: Sequence[tuple[Kind, int]], hashes: Sequence[bytes]) -> Iterable[Piece]:
        """Entries that are read together: of one kind, and not more than a piece."""
        for kind, group in groupby(missing, key=lambda item: item[0]):
            indices = [index for _, index in group]
            num_bytes = self._store.length(self._keys.of(kind, hashes[indices[0]]))
            count = 1 if kind == "state" else max(PIECE_BYTES // max(num_bytes, 1), 1)
            for end in range(len(indices), 0, -count):
                yield Piece(kind, indices[max(end - count, 0) : end])
