"""What goes to the disk: blocks that requests left behind, head first, long before anyone evicts them.

Eviction takes place in the middle of a step, where nothing may be waited for; so blocks are copied when a request has
left them, between two steps, and by the time they are evicted they are on the disk already or lost to it. Beside
running requests the copies get a small part of the time; an idle engine goes on until all is copied.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import NamedTuple

from mlx_agent_llm.core.kv.tier.catalogue import ROOT
from mlx_agent_llm.core.kv.tier.segment import Part
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.kv.tier.writer import BackgroundWriter
from mlx_agent_llm.core.tiering.contents import Contents, Kind, Read
from mlx_agent_llm.core.tiering.keys import GroupPools, TierKeys

MAX_BLOCKS = 128  # of a segment
MAX_BYTES = 2**24  # of a segment, unless one block takes more
_TIMES_AS_LONG = 20  # that running requests are left alone after a copy...
_TIMES_AS_LONG_WHEN_FULL = 4  # ...and where the next block to be taken is one that may not be copied yet
_SECONDS = 0.01  # that a step waits at most to learn who writes


class _Item(NamedTuple):
    """One entry to be copied: what layers of a kind keep at a block of a chain."""

    kind: Kind
    position: int  # in the chain
    place: int  # the block or slot


class Spill:
    """Copies chains of blocks to a store, piece by piece."""

    def __init__(
        self, pools: GroupPools, contents: Contents, store: TierStore, keys: TierKeys, chains: deque[Sequence[bytes]]
    ) -> None:
        self.writer = BackgroundWriter(store)
        self._pools = pools.by_kind()
        self._contents = contents
        self._store = store
        self._keys = keys
        self._chains = chains  # the hashes of what each request left, oldest first
        self._begin = 0  # of what is left of the first chain
        self._sizes: dict[Kind, int] = {}
        self._next_at = 0.0
        self._taking_over: Future[bool] | None = None

    @property
    def has_work(self) -> bool:
        """Whether there is anything to copy, or to be written."""
        return bool(self._chains)

    def step(self, *, is_idle: bool) -> None:
        """Copy a piece, where running requests can bear it and the writer keeps up; an idle engine waits for it."""
        if not self._chains or not (is_idle or time.perf_counter() >= self._next_at):
            return
        if not self.writer.has_room:
            time.sleep(0.01 if is_idle else 0.0)
            return
        began = time.perf_counter()
        self._copy_piece()
        times = _TIMES_AS_LONG if self._pools["full"].num_free else _TIMES_AS_LONG_WHEN_FULL
        self._next_at = time.perf_counter() + times * (time.perf_counter() - began)

    def finish(self) -> None:
        """Copy all that is left, and wait until it is written."""
        while self._chains:
            if self.writer.has_room:
                self._copy_piece()
            else:
                time.sleep(0.001)
        self.writer.close()

    def _copy_piece(self) -> None:
        """The next piece of the first chain that has anything new; chains that have nothing are done."""
        while self._is_writer() and self._chains:
            chain = self._chains[0]
            items = self._next_items(chain)
            if items and self._copy(chain, items):
                self._begin = items[-1].position + 1
                return
            self._store.touch(self._keys.of("full", block_hash) for block_hash in chain)
            self._chains.popleft()
            self._begin = 0

    def _is_writer(self) -> bool:
        """Whether anything may be written; where another process writes, the chains are given up."""
        if self._store.is_writer:
            return True
        self._taking_over = self._taking_over or self.writer.take_over()
        wait([self._taking_over], _SECONDS)
        if not self._taking_over.done():
            return False
        self._taking_over = None
        if not self._store.is_writer:
            self._chains.clear()
            self._begin = 0
        return self._store.is_writer

    def _next_items(self, chain: Sequence[bytes]) -> list[_Item]:
        """What comes next of a chain and is neither there nor on its way, and what of it a segment holds."""
        items, num_bytes = list[_Item](), 0
        for index in range(self._begin, len(chain)):
            block_hash = chain[index]
            new = [
                _Item(kind, index, place)
                for kind, pool in self._pools.items()
                if (place := pool.find(block_hash)) is not None and self._is_new(kind, block_hash)
            ]
            is_reachable = bool(new and new[0].kind == "full") or not self._is_new("full", block_hash)
            num_bytes += sum(self._num_bytes(item.kind) for item in new)
            if not is_reachable or (items and (num_bytes > MAX_BYTES or index - items[0].position >= MAX_BLOCKS)):
                break
            items += new
        return items

    def _copy(self, chain: Sequence[bytes], items: Sequence[_Item]) -> bool:
        """Hand a piece to the writer; False where something in it is not finite, and the chain ends before it."""
        parts = list[Part]()
        last = len(chain)
        for kind in self._pools:
            chosen = [item for item in items if item.kind == kind and item.position < last]
            for item, read in zip(chosen, self._read(kind, [item.place for item in chosen]), strict=True):
                if read is None:
                    continue
                if not read.is_finite:
                    last = item.position
                    break
                parts.append(Part(self._keys.of(kind, chain[item.position]), read.content))
        first = items[0].position
        if parts:
            parent = self._keys.of("full", chain[first - 1]) if first else ROOT
            self.writer.submit(parent, parts)
        return last == len(chain)

    def _read(self, kind: Kind, places: Sequence[int]) -> Sequence[Read | None]:
        if not places:
            return []
        if kind == "state":
            return [self._contents.read_state(place) for place in places]
        return self._contents.read_blocks(kind, places)

    def _is_new(self, kind: Kind, block_hash: bytes) -> bool:
        key = self._keys.of(kind, block_hash)
        return not self._store.has(key) and not self.writer.waits(key)

    def _num_bytes(self, kind: Kind) -> int:
        """Of one entry; what a state takes is not known before."""
        if kind not in self._sizes:
            self._sizes[kind] = 0 if kind == "state" else self._contents.block_bytes(kind)
        return self._sizes[kind]
