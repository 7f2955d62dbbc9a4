"""What comes back from the disk: the blocks of a prompt that are there and not in memory, before the request runs.

A request waits outside of the running ones while threads read; what was read is put into blocks of the pool between two
steps, and is found there as if it had never left. It is read from the end to the head, so that a request need not wait:
where reading and computing take about as long it computes from the head on until it meets what was read, and so does
one that has waited for as long as computing would have taken. Where computing is much the faster one, no more is read
than tells whether it still is.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.tier.segment import Bytes
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.tiering.contents import Contents, Kind
from mlx_agent_llm.core.tiering.keys import GroupPools, TierKeys
from mlx_agent_llm.core.tiering.plan import Piece, Plan, Planner
from mlx_agent_llm.core.tiering.rates import ReadingRates
from mlx_agent_llm.request import Request

NUM_READERS = 4
NUM_PIECES = 8  # of a request that are read and not yet in the pool
_SECONDS = 0.01  # that an engine with nothing else to do waits for the disk, because there may be new requests


class _Found(NamedTuple):
    """What a thread has read, None of an entry that is not there, and how long it took."""

    contents: Sequence[Bytes | None]
    seconds: float


@dataclass(eq=False)
class _Job:
    """One prompt's way back."""

    requests: list[Request]
    plan: Plan
    unread: deque[Piece]
    release_at: float  # when its requests begin to compute, too
    begins_at: int  # tokens, as all that follow
    meet_at: int  # up to where they compute first, in which time the others are expected to be read
    ends_at: int
    chunk: int  # that they compute of that in a step: a longer one would leave the readers without work
    read_from: int  # before what of it is in the pool
    counted_until: float  # of the seconds that reading took
    reading: deque[tuple[Piece, Future[_Found]]] = field(default_factory=deque)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody has not yet come to where it ends."""
        return any(not one.is_finished and one.kv.num_computed_tokens < self.ends_at for one in self.requests)

    @property
    def num_blocks_under_way(self) -> int:
        """Blocks that it will take of the pool."""
        pieces = [*self.unread, *(piece for piece, _ in self.reading)]
        return sum(len(piece.indices) for piece in pieces if piece.kind == "full")

    def release(self) -> None:
        """Let its requests compute, up to what is read or will be."""
        for request in self.requests:
            request.on_disk, num_computed = "done", max(request.kv.num_computed_tokens, self.begins_at)
            is_near = num_computed >= self.meet_at
            request.read_from = self.read_from if is_near else min(num_computed + self.chunk, self.meet_at)


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
        self._planner = Planner(kv_manager, store, keys)
        self._rates = ReadingRates()
        self._jobs: list[_Job] = []
        self._executor = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="mlx-agent-kv-reader")
        self._refreshing: Future[None] | None = None

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
                self._refresh()
                plan = self._planner.plan(request)
                request.on_disk = "done"
                if plan is not None and not self._joins(request, plan):
                    self._begin(request, plan, tokens_per_second)

    def step(self, running: Sequence[Request], waiting: Sequence[Request]) -> None:
        """Put what was read by now into the pools, little of it beside requests that nothing is read for."""
        if self._jobs and not running and all(request.on_disk == "read" for request in waiting):
            wait([job.reading[0][1] for job in self._jobs if job.reading], _SECONDS, "FIRST_COMPLETED")
        served = {request for job in self._jobs for request in job.requests}
        is_alone = served.issuperset(running) and served.issuperset(waiting)
        for job in list(self._jobs):
            while job.reading and job.reading[0][1].done() and self._go_on(job) and is_alone:
                pass
            if job in self._jobs and not job.is_wanted:
                self._end(job)
            elif time.perf_counter() >= job.release_at:
                job.release()

    def drop(self) -> None:
        """Let the requests run with what there is, as after a fault."""
        for job in list(self._jobs):
            self._end(job)

    def close(self) -> None:
        """End the threads; what is being read is nobody's."""
        self.drop()
        self._executor.shutdown(cancel_futures=True)

    def _has_room(self, request: Request) -> bool:
        """Whether the pool has room for the whole request beside what is on its way."""
        under_way = sum(job.num_blocks_under_way for job in self._jobs)
        return self._kv.num_missing_blocks(request) <= self._kv.pool.num_available - under_way

    def _refresh(self) -> None:
        """Know what another process has written, unless the disk takes its time: then the next request does."""
        if self._store.is_writer:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._executor.submit(self._store.refresh)
            wait([self._refreshing], _SECONDS)

    def _joins(self, request: Request, plan: Plan) -> bool:
        """Whether what a request needs is on its way for another one; then it waits for that, and is asked again."""
        for job in self._jobs:
            common = min(len(plan.hashes), len(job.plan.hashes))
            if plan.hashes[:common] == job.plan.hashes[:common]:
                request.on_disk = "read"
                job.requests.append(request)
                return True
        return False

    def _begin(self, request: Request, plan: Plan, tokens_per_second: float | None) -> None:
        way = self._rates.choose(plan.num_bytes, plan.num_tokens, tokens_per_second)
        pieces = plan.pieces if way.name != "compute" else plan.pieces[:1]
        size, now = self._kv.block_size, time.perf_counter()
        end = len(plan.hashes) * size
        begin = end - plan.num_tokens
        part_read = 1 - way.num_to_compute / plan.num_tokens
        num_chunks = max(math.ceil(part_read * len(pieces) / (NUM_PIECES // 2)), 1)
        job = _Job(
            requests=[request],
            plan=plan,
            unread=deque(pieces),
            release_at=now + way.patience,
            begins_at=begin,
            meet_at=begin + way.num_to_compute // size * size if way.name == "both" else 0,
            ends_at=end,
            chunk=math.ceil(way.num_to_compute / num_chunks / size) * size,
            read_from=end,
            counted_until=now,
        )
        request.on_disk = "read"
        self._store.touch(self._keys.of("full", block_hash) for block_hash in plan.hashes)
        self._jobs.append(job)
        self._read_on(job)
        if way.name != "read":
            job.release()

    def _read_on(self, job: _Job) -> None:
        """Read what nobody computed meanwhile."""
        while job.unread and len(job.reading) < NUM_PIECES:
            piece = job.unread.popleft()
            pool = self._pools[piece.kind]
            indices = [index for index in piece.indices if pool.find(job.plan.hashes[index]) is None]
            if indices:
                keys = [self._keys.of(piece.kind, job.plan.hashes[index]) for index in indices]
                job.reading.append((Piece(piece.kind, indices), self._executor.submit(_read, self._store, keys)))

    def _go_on(self, job: _Job) -> bool:
        """Put one piece into its pool; False when that was the last one, because all is there or one is not."""
        piece, future = job.reading.popleft()
        contents, seconds = future.result()
        found = [content for content in contents if content is not None]
        is_whole = len(found) == len(piece.indices)
        began = time.perf_counter()
        is_put = is_whole and self._put(job, piece, found)
        self._count(job, sum(map(len, found)), seconds, time.perf_counter() - began)
        self._read_on(job)
        if is_put and job.reading:
            return True
        self._end(job, again=job.requests[1:] if is_whole else job.requests)
        return False

    def _count(self, job: _Job, num_bytes: int, reading_seconds: float, putting_seconds: float) -> None:
        now = time.perf_counter()
        self.read_seconds += now - job.counted_until
        job.counted_until = now
        self.num_read_bytes += num_bytes
        self._rates.count(num_bytes, reading_seconds / min(NUM_READERS, len(job.plan.pieces)), putting_seconds)

    def _put(self, job: _Job, piece: Piece, contents: Sequence[Bytes]) -> bool:
        """Make blocks of what was read findable; False where there is no room for it."""
        pool, hashes = self._pools[piece.kind], job.plan.hashes
        new = [i for i, index in enumerate(piece.indices) if pool.find(hashes[index]) is None]
        # The other blocks are held meanwhile, so that the new ones do not take their places.
        others = _hold(pool, hashes)
        place_ids = pool.allocate(len(new)) if len(new) <= pool.num_available else []
        try:
            if place_ids:
                self._write(piece.kind, place_ids, [contents[i] for i in new])
                for place, i in zip(place_ids, new, strict=True):
                    index = piece.indices[i]
                    hash_before = hashes[index - 1] if index else job.plan.root
                    pool.set_hash(place, hashes[index], b"" if piece.kind == "state" else hash_before)
        finally:
            pool.release([*others, *place_ids])
        if piece.kind == "full" and len(place_ids) == len(new):
            self.num_hit_tokens += len(new) * self._kv.block_size
            job.read_from = piece.indices[0] * self._kv.block_size
        return len(place_ids) == len(new)

    def _write(self, kind: Kind, places: Sequence[int], contents: Sequence[Bytes]) -> None:
        if kind == "state":
            for place, content in zip(places, contents, strict=True):
                self._contents.write_state(place, content)
        else:
            self._contents.write_blocks(kind, places, contents)

    def _end(self, job: _Job, again: Sequence[Request] = ()) -> None:
        """Let its requests run; those of them that wait and for which there may be more on the disk are asked again."""
        self._jobs.remove(job)
        for _, future in job.reading:
            future.cancel()
        for request in job.requests:
            if request.on_disk == "read":
                request.on_disk = "unasked" if request in again else "done"


def _read(store: TierStore, keys: Sequence[bytes]) -> _Found:
    began = time.perf_counter()
    return _Found(store.read(keys), time.perf_counter() - began)


def _hold(pool: BlockPool, hashes: Sequence[bytes]) -> list[int]:
    """Take a reference to each block that is there."""
    found = [place for place in map(pool.find, hashes) if place is not None]
    for place in found:
        pool.share(place)
    return found
