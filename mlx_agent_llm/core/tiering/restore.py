"""What comes back from the disk: the blocks of a prompt that are there and not in memory, before the request runs.

A request waits outside of the running ones while threads read; what was read is put into blocks of the pool between two
steps, and is found there as if it had never left. Where reading would take longer than computing, by what both took so
far, nothing is read; where it turns out to, what was read by then is what the request begins with.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.tier.segment import Bytes
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.tiering.contents import Contents, Kind
from mlx_agent_llm.core.tiering.keys import GroupPools, TierKeys
from mlx_agent_llm.request import Request

NUM_READERS = 4
NUM_PIECES = 8  # of a request that are read and not yet in the pool
PIECE_BYTES = 2**24  # and what one step puts into the pool beside running requests
_MIN_PATIENCE = 0.5  # seconds that a prompt waits for the disk in any case: a rate of a few tokens says little
_SECONDS = 0.01  # that an engine with nothing else to do waits, because there may be new requests


class _Piece(NamedTuple):
    """Entries of one kind, in the order of the chain."""

    kind: Kind
    indices: Sequence[int]


@dataclass(eq=False)
class _Job:
    """One prompt's way back. root: what its first block follows; border: of how many blocks."""

    requests: list[Request]
    hashes: Sequence[bytes]
    root: bytes
    border: int
    num_gained_tokens: int
    unread: deque[_Piece]
    reading: deque[tuple[_Piece, Future[list[Bytes | None]]]] = field(default_factory=deque)
    num_bytes: int = 0
    patience: float = math.inf  # seconds in which the gained tokens would be computed
    began_at: float = field(default_factory=time.perf_counter)


class Restore:
    """Reads what is worth it for requests that wait, and puts it into the pools."""

    def __init__(self, kv_manager: KVManager, contents: Contents, store: TierStore, keys: TierKeys) -> None:
        self.num_read_bytes = 0
        self.read_seconds = 0.0
        self.num_hit_tokens = 0
        self._kv = kv_manager
        self._pools = GroupPools.of(kv_manager).by_kind()
        self._contents = contents
        self._store = store
        self._keys = keys
        self._jobs: list[_Job] = []
        self._executor = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="mlx-agent-kv-reader")

    @property
    def has_work(self) -> bool:
        """Whether anything is being read."""
        return bool(self._jobs)

    def look(self, waiting: Sequence[Request], tokens_per_second: float | None) -> None:
        """Begin to read for requests that could run now; tokens_per_second: what computing a prompt makes, if known."""
        for request in waiting:
            if request.on_disk == "unasked" and request.parent is None:
                if not self._has_room(request):
                    return  # it is asked again when there is room
                self._store.refresh()
                job = self._plan(request)
                request.on_disk = "done"
                if job is not None and self._is_worth_it(job, tokens_per_second):
                    if tokens_per_second is not None:
                        job.patience = max(job.num_gained_tokens / tokens_per_second, _MIN_PATIENCE)
                    self._begin(job)

    def step(self, *, is_idle: bool) -> None:
        """Put what was read by now into the pools, little of it beside running requests."""
        if is_idle and self._jobs:
            wait([job.reading[0][1] for job in self._jobs if job.reading], _SECONDS, "FIRST_COMPLETED")
        for job in list(self._jobs):
            while job.reading and job.reading[0][1].done() and self._go_on(job) and is_idle:
                pass
            is_wanted = any(not request.is_finished for request in job.requests)
            if job in self._jobs and not (is_wanted and time.perf_counter() - job.began_at <= job.patience):
                self._end(job)

    def drop(self) -> None:
        """Let the requests run with what there is, as after a fault."""
        for job in list(self._jobs):
            self._end(job)

    def close(self) -> None:
        """End the threads; what is being read is nobody's."""
        self.drop()
        self._executor.shutdown(cancel_futures=True)

    def _plan(self, request: Request) -> _Job | None:
        """What has to be read for the last border that can be reached; None where that is nothing."""
        hashes = self._reachable(request)
        num_here = next((i for i, one in enumerate(hashes) if self._pools["full"].find(one) is None), len(hashes))
        for border in range(len(hashes), 0, -1):
            missing = self._missing(hashes, border)
            if missing is None:
                continue
            if not missing:
                return None
            pieces = self._pieces(missing, hashes)
            gained = (border - (num_here if set(self._pools) == {"full"} else 0)) * self._kv.block_size
            root = self._kv.hashes.before(request, 0)
            return _Job([request], hashes[:border], root, border, gained, deque(pieces))
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
        return full + missing

    def _pieces(self, missing: Sequence[tuple[Kind, int]], hashes: Sequence[bytes]) -> list[_Piece]:
        """Entries that are read together: of one kind, and not more than a piece."""
        pieces = list[_Piece]()
        for kind, group in groupby(missing, key=lambda item: item[0]):
            indices = [index for _, index in group]
            num_bytes = self._store.length(self._keys.of(kind, hashes[indices[0]]))
            count = 1 if kind == "state" else max(PIECE_BYTES // max(num_bytes, 1), 1)
            pieces += [_Piece(kind, indices[i : i + count]) for i in range(0, len(indices), count)]
        return pieces

    def _has_room(self, request: Request) -> bool:
        """Whether the pool has room for the whole request beside what is on its way."""
        under_way = sum(job.border for job in self._jobs)
        return self._kv.num_missing_blocks(request) <= self._kv.pool.num_available - under_way

    def _is_worth_it(self, job: _Job, tokens_per_second: float | None) -> bool:
        """As long as nothing was read or computed yet, reading is taken to be the faster one."""
        if tokens_per_second is None or not self.num_read_bytes:
            return True
        num_bytes = sum(
            self._store.length(self._keys.of(piece.kind, job.hashes[index]))
            for piece in job.unread
            for index in piece.indices
        )
        return num_bytes * self.read_seconds / self.num_read_bytes <= job.num_gained_tokens / tokens_per_second

    def _begin(self, job: _Job) -> None:
        """One that needs what is on its way for another one waits with that one."""
        [request] = job.requests
        request.on_disk = "read"
        for other in self._jobs:
            if job.hashes[: other.border] == other.hashes or other.hashes[: job.border] == job.hashes:
                other.requests.append(request)
                return
        self._store.touch(self._keys.of("full", block_hash) for block_hash in job.hashes)
        self._jobs.append(job)
        self._read_on(job)

    def _read_on(self, job: _Job) -> None:
        while job.unread and len(job.reading) < NUM_PIECES:
            piece = job.unread.popleft()
            keys = [self._keys.of(piece.kind, job.hashes[index]) for index in piece.indices]
            job.reading.append((piece, self._executor.submit(self._store.read, keys)))

    def _go_on(self, job: _Job) -> bool:
        """Put one piece into its pool; False when that was the last one, because all is there or one is not."""
        piece, future = job.reading.popleft()
        contents = [content for content in future.result() if content is not None]
        is_whole = len(contents) == len(piece.indices) and self._put(job, piece, contents)
        job.num_bytes += sum(map(len, contents))
        self._read_on(job)
        if is_whole and job.reading:
            return True
        if is_whole:
            self.num_hit_tokens += job.num_gained_tokens
        self._end(job)
        return False

    def _put(self, job: _Job, piece: _Piece, contents: Sequence[Bytes]) -> bool:
        """Make blocks of what was read findable; False where there is no room for it."""
        pool = self._pools[piece.kind]
        new = [i for i, index in enumerate(piece.indices) if pool.find(job.hashes[index]) is None]
        # The blocks before are held meanwhile, so that the new ones do not take their places.
        before = _hold(pool, job.hashes[: piece.indices[0]])
        place_ids = pool.allocate(len(new)) if len(new) <= pool.num_available else []
        try:
            if place_ids:
                self._write(piece.kind, place_ids, [contents[i] for i in new])
                for place, i in zip(place_ids, new, strict=True):
                    index = piece.indices[i]
                    hash_before = job.hashes[index - 1] if index else job.root
                    pool.set_hash(place, job.hashes[index], b"" if piece.kind == "state" else hash_before)
        finally:
            pool.release([*before, *place_ids])
        return len(place_ids) == len(new)

    def _write(self, kind: Kind, places: Sequence[int], contents: Sequence[Bytes]) -> None:
        if kind == "state":
            for place, content in zip(places, contents, strict=True):
                self._contents.write_state(place, content)
        else:
            self._contents.write_blocks(kind, places, contents)

    def _end(self, job: _Job) -> None:
        """Let its requests run."""
        self._jobs.remove(job)
        for _, future in job.reading:
            future.cancel()
        for request in job.requests:
            request.on_disk = "done"
        if job.num_bytes:
            self.num_read_bytes += job.num_bytes
            self.read_seconds += time.perf_counter() - job.began_at


def _hold(pool: BlockPool, hashes: Sequence[bytes]) -> list[int]:
    """Take a reference to each block that is there."""
    found = [place for place in map(pool.find, hashes) if place is not None]
    for place in found:
        pool.share(place)
    return found
