"""Who runs this step: the token budget, priorities, admission and preemption. Knows no arrays and no model.

There is no prefill phase and no decode phase (as in vLLM v1): a request has num_computed_tokens, and a step brings it
closer to num_tokens within the budget. Decode rows come first, so that a long prompt never stalls a running stream.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.schedule.pacing import PromptPacer
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.errors import CapacityError, ContextLengthError
from mlx_agent_llm.request import NO_DRAFT, Request

_RANK = attrgetter("rank")


class Failure(NamedTuple):
    """A request that cannot be scheduled, and why."""

    request: Request
    fault: Exception


class Scheduler:
    """Holds the waiting and the running requests, both in the order of their ranks, and picks each step's tokens."""

    def __init__(self, config: EngineConfig, kv_manager: KVManager, max_model_len: int) -> None:
        self._config = config
        self._kv = kv_manager
        self._max_model_len = max_model_len
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.pacer = PromptPacer(config.max_slowdown, config.block_size)
        self.num_preemptions = 0
        self._failures: list[Failure] = []

    @property
    def keeps_message_ends(self) -> bool:
        """Whether states are kept where messages of a prompt end, as those of recurrent layers are."""
        return self._kv.states is not None

    @property
    def max_request_tokens(self) -> int:
        """The most tokens that a request can have, prompt and output together: what the context and the pool hold."""
        num_pool_tokens = self._kv.pool.num_blocks * self._kv.block_size  # 0 where no layer keeps all tokens
        return min(self._max_model_len, num_pool_tokens) if num_pool_tokens else self._max_model_len

    def check(self, num_prompt_tokens: int, max_tokens: int) -> None:
        """Raise ContextLengthError or CapacityError for a request that could never run; any thread may ask."""
        if num_prompt_tokens >= self._max_model_len:
            raise ContextLengthError(
                f"prompt of {num_prompt_tokens} tokens leaves no room for a new one: "
                f"max_model_len={self._max_model_len}"
            )
        longest = self._longest(num_prompt_tokens, max_tokens)
        if self._kv.num_blocks_for(longest) > self._kv.pool.num_blocks:
            raise CapacityError(
                f"prompt of {num_prompt_tokens} tokens + max_tokens={max_tokens} needs room for {longest} tokens, "
                f"but the KV pool holds {self._kv.pool.num_blocks * self._kv.block_size}"
            )

    def reserve_pins(self, requests: Sequence[Request]) -> None:
        """Keep room for prompts that are pinned when they end.

        CapacityError, and nothing is changed, where that is too much, also for a request that is here already.
        """
        self._kv.pins.reserve(requests)
        try:
            for request in (*self.running, *self.waiting):
                self._check_beside_pins(request)
        except CapacityError:
            self._kv.pins.drop([request.request_id for request in requests])
            raise

    def add(self, request: Request) -> None:
        """Queue a request that the check let through."""
        request.max_num_tokens = self._longest(request.num_prompt_tokens, request.params.max_tokens)
        insort(self.waiting, request, key=_RANK)

    def schedule(self) -> Schedule | None:
        """The next step's work, with its blocks allocated; None when nothing can run."""
        settled = self._num_settled_tokens()
        streams, prompts = self._streams_and_prompts()
        chunks = self._schedule_decode(streams)
        num_streams, num_stream_tokens = len(chunks), sum(chunk.length for chunk in chunks)
        budget = self._config.max_tokens_per_step - num_stream_tokens
        if streams:  # also those that wait for their last token only
            budget = int(min(budget, self.pacer.limit()))
        # With nothing that decodes, and so nothing that ends, waiting for blocks would be waiting for ever.
        may_preempt = not any(request.kv.block_table for request in streams)
        chunks += self._schedule_running_prompts(prompts, budget, may_preempt=may_preempt)
        budget -= sum(chunk.length for chunk in chunks) - num_stream_tokens
        chunks += self._admit(budget, settled, may_split_block=len(chunks) == num_streams)
        if not chunks:
            return None
        return Schedule(
            [chunk for chunk in chunks if chunk.length == 1],
            [chunk for chunk in chunks if chunk.length > 1],
            self._kv.end_step(),
            num_prompt_tokens=sum(chunk.length for chunk in chunks[num_streams:] if not _begins_a_stream(chunk)),
        )

    def take_failures(self) -> list[Failure]:
        """Hand over the waiting requests that the last schedule could not start, once; they are to be finished."""
        failures, self._failures = self._failures, []
        return failures

    def finish(self, request: Request) -> None:
        """Take a request out and give its blocks back: the only place where blocks are freed for good."""
        was_there = _discard(self.running, request) or _discard(self.waiting, request)
        assert was_there, f"request {request.request_id} is not here"
        self._kv.pins.settle(request)
        self._kv.free(request)

    def _num_settled_tokens(self) -> Mapping[Request, int]:
        """How many tokens of each running request earlier forwards compute; empty when nobody waits for a parent."""
        if all(request.parent is None for request in self.waiting):
            return {}
        return {request: request.kv.num_computed_tokens for request in self.running}

    def _streams_and_prompts(self) -> tuple[list[Request], list[Request]]:
        """Those that run, in order; one that holds no block later in the step was preempted meanwhile."""
        streams: list[Request] = []
        prompts: list[Request] = []
        for request in self.running:
            (streams if request.is_decoding else prompts).append(request)
        return streams, prompts

    def _schedule_decode(self, streams: Sequence[Request]) -> list[Chunk]:
        """A token of each stream, and of those that the grammar forced as many more as there is room for."""
        chunks: list[Chunk] = []
        num_spare = self._config.max_tokens_per_step - len(streams)
        for request in streams:
            if not request.kv.block_table or request.num_tokens >= request.max_num_tokens:
                continue  # preempted for an earlier row, or its last token is in flight
            if self._kv.take_slot(request):
                chunks.append(Chunk(request, request.kv.num_computed_tokens - 1, 1, request.grammar is None))
            elif (chunk := self._extend_stream(request, 1 + num_spare)) is not None:
                num_spare -= chunk.length - 1
                chunks.append(chunk)
        return chunks

    def _extend_stream(self, request: Request, budget: int) -> Chunk | None:
        """Its tokens and as much of its draft as fits; nobody is preempted for what may be wrong."""
        if request.draft.token_ids:
            request.draft = request.draft.cut(budget - (request.num_tokens - request.kv.num_computed_tokens))
            length = self._kv.allocate(request, budget)
            if length is not None:
                return _chunk(request, length)
            request.draft = NO_DRAFT
        return self._allocate_or_preempt(request, budget)

    def _schedule_running_prompts(self, prompts: Sequence[Request], budget: int, *, may_preempt: bool) -> list[Chunk]:
        """Only a step's first prompt may end within a block.

        What the first leaves of the budget is often too little for a block; another prompt that took it could not match
        at a border any more, and would compute what the first one is computing.
        """
        chunks: list[Chunk] = []
        for request in prompts:
            if budget == 0 or not request.kv.block_table or request.kv.num_computed_tokens == request.num_ready_tokens:
                continue
            if may_preempt and not chunks:
                chunk = self._allocate_or_preempt(request, budget)
            else:
                chunk = _chunk(request, self._kv.allocate(request, budget, may_split_block=not chunks))
            if chunk is not None:
                chunks.append(chunk)
                budget -= chunk.length
        return chunks

    def _admit(self, budget: int, settled: Mapping[Request, int], *, may_split_block: bool) -> list[Chunk]:
        """Start waiting requests in order, as long as their whole prompts fit beside those that already run.

        One that waits for its parent, for blocks that are read from the disk, or for its grammar with nothing else to
        compute, is passed over. A fault is that of the request that meets it, alone.
        """
        if not self.waiting or self._is_full(budget):
            return []
        # One that was preempted in this step may come back in it, and has settled nothing then.
        settled = {request: count for request, count in settled.items() if request.kv.block_table}
        reserved = sum(self._kv.num_missing_blocks(running) for running in self.running)
        chunks: list[Chunk] = []
        for request in self.waiting:
            if self._is_full(budget):
                break
            try:
                if request.on_disk == "read":
                    reserved += self._kv.num_missing_blocks(request)
                    continue
                self._check_beside_pins(request)
                if self._waits_for_parent(request, settled):
                    continue
                if (self.running or reserved) and not self._fits(request, reserved):
                    break
                length = self._kv.allocate(request, budget, may_split_block=may_split_block and not chunks)
            except Exception as fault:
                self._kv.discard(request)
                self._failures.append(Failure(request, fault))
                continue
            chunk = _chunk(request, length)
            if chunk is None:
                if length == 0 and request.grammar is not None:
                    continue
                break
            insort(self.running, request, key=_RANK)
            request.started_at = request.started_at or time.perf_counter()
            reserved += 0 if chunk.is_sampled else self._kv.num_missing_blocks(request)
            budget -= chunk.length
            chunks.append(chunk)
        if chunks:
            self.waiting = [request for request in self.waiting if not request.kv.block_table]
        return chunks

    def _check_beside_pins(self, request: Request) -> None:
        """Raise CapacityError for a request that has no room beside what was pinned after it was let through."""
        longest = request.max_num_tokens
        if self._kv.pins.hashes and not self._kv.fits_beside_pins(request, longest):
            num_pinned = len(self._kv.pins.hashes) * self._kv.block_size
            raise CapacityError(
                f"request {request.request_id} needs room for {longest} tokens, and {num_pinned} of the "
                f"{self._kv.pool.num_blocks * self._kv.block_size} that the KV pool holds are pinned"
            )

    def _longest(self, num_prompt_tokens: int, max_tokens: int) -> int:
        return min(num_prompt_tokens + max_tokens, self._max_model_len)

    def _is_full(self, budget: int) -> bool:
        """Whether the step has no room for one more request."""
        return budget == 0 or len(self.running) == self._config.max_num_seqs

    def _fits(self, request: Request, reserved: int) -> bool:
        """Whether the pool has room for all tokens of a request beside so many blocks."""
        room = self._kv.pool.num_available - reserved
        return self._kv.num_blocks_for(request.num_tokens) <= room or self._kv.num_missing_blocks(request) <= room

    def _waits_for_parent(self, request: Request, settled: Mapping[Request, int]) -> bool:
        """Whether it is worth waiting for the parent's KV; a parent that has nothing to give is dropped.

        What the parent computes in this very step is not there yet when a block of it is copied.
        """
        parent = request.parent
        if parent is None:
            return False
        if parent.kv.block_table:  # it runs
            return settled.get(parent, 0) < request.num_tokens - 1
        if not parent.is_finished and parent.rank < request.rank:
            return True
        request.parent = None
        return False

    def _allocate_or_preempt(self, request: Request, budget: int) -> Chunk | None:
        """Allocate, taking blocks from the last-ranked request until there is room.

        None when the last-ranked was this one, or when nothing of it can be computed, which no room would change.
        Requests are scheduled in their rank's order, so a victim never has work in this step already.
        """
        while (length := self._kv.allocate(request, budget)) is None:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return None
        return _chunk(request, length)

    def _preempt(self, request: Request) -> None:
        self._kv.free(request)
        request.draft = NO_DRAFT
        _discard(self.running, request)
        insort(self.waiting, request, key=_RANK)
        request.num_preemptions += 1
        self.num_preemptions += 1


def _chunk(request: Request, length: int | None) -> Chunk | None:
    """What the KV manager allocated for a request, if that is anything."""
    if not length:
        return None
    end = request.kv.num_computed_tokens
    return Chunk(request, end - length, length, end == request.num_tokens + len(request.draft.token_ids))


def _begins_a_stream(chunk: Chunk) -> bool:
    """Whether its one token follows output whose KV is there: a fork's, or that of one that found all it had."""
    return chunk.length == 1 and chunk.request.num_output_tokens > 0


def _discard(requests: list[Request], request: Request) -> bool:
    """Take a request out of requests in the order of their ranks; whether it was there."""
    index = bisect_left(requests, request.rank, key=_RANK)
    is_there = index < len(requests) and requests[index] is request
    if is_there:
        del requests[index]
    return is_there
