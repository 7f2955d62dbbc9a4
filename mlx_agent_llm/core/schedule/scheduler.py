"""Who runs this step: the token budget, priorities, admission and preemption. Knows no arrays and no model.

There is no prefill phase and no decode phase (as in vLLM v1): a request has num_computed_tokens, and a step brings it
closer to num_tokens within the budget. Decode rows come first, so that a long prompt never stalls a running stream.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.kv_manager import BlockCopy, KVManager
from mlx_agent_llm.core.schedule.pacing import PromptPacer
from mlx_agent_llm.errors import CapacityError, ContextLengthError
from mlx_agent_llm.request import Request

PRIORITY_AGING_SECONDS = 10.0  # of waiting raise a request by one level of priority


class Chunk(NamedTuple):
    """The tokens [start, start + length) of a request that one forward computes."""

    request: Request
    start: int
    length: int
    is_sampled: bool  # it ends with the request's last token, after which the next one is sampled


@dataclass(frozen=True)
class Schedule:
    """One step's work: single-token chunks, which attend as decode rows, and longer ones."""

    rows: list[Chunk]
    prompts: list[Chunk]
    copies: list[BlockCopy] = field(default_factory=list)  # to be done before anything is written

    @property
    def chunks(self) -> list[Chunk]:
        """All, in the order of the packed tokens."""
        return self.rows + self.prompts


class Scheduler:
    """Holds the waiting and the running requests and picks each step's tokens."""

    def __init__(self, config: EngineConfig, kv_manager: KVManager, max_model_len: int) -> None:
        self._config = config
        self._kv = kv_manager
        self._max_model_len = max_model_len
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.pacer = PromptPacer(config.max_slowdown, config.block_size)
        self.num_preemptions = 0

    def check(self, num_prompt_tokens: int, max_tokens: int) -> None:
        """Raise ContextLengthError or CapacityError for a request that could never run; any thread may ask."""
        if num_prompt_tokens >= self._max_model_len:
            raise ContextLengthError(
                f"prompt of {num_prompt_tokens} tokens leaves no room for a new one: "
                f"max_model_len={self._max_model_len}"
            )
        longest = min(num_prompt_tokens + max_tokens, self._max_model_len)
        if self._kv.num_blocks_for(longest) > self._kv.pool.num_blocks:
            raise CapacityError(
                f"prompt of {num_prompt_tokens} tokens + max_tokens={max_tokens} needs room for {longest} tokens, "
                f"but the KV pool holds {self._kv.pool.num_blocks * self._kv.block_size}"
            )

    def schedule(self) -> Schedule | None:
        """The next step's work, with its blocks allocated; None when nothing can run."""
        # New lists, because other threads ask for the lengths, and a list is empty while it is sorted in place.
        self.running = sorted(self.running, key=_rank)
        self.waiting = sorted(self.waiting, key=_rank)
        settled = self._num_settled_tokens()
        streams, prompts = self._streams_and_prompts()
        chunks = self._schedule_decode(streams)
        num_streams, num_stream_tokens = len(chunks), sum(chunk.length for chunk in chunks)
        budget = self._config.max_tokens_per_step - num_stream_tokens
        if streams:  # also those that wait for their last token only
            budget = int(min(budget, self.pacer.limit()))
        # With nothing that decodes, and so nothing that ends, waiting for blocks would be waiting for ever.
        may_preempt = not any(request.block_table for request in streams)
        chunks += self._schedule_running_prompts(prompts, budget, may_preempt=may_preempt)
        budget -= sum(chunk.length for chunk in chunks) - num_stream_tokens
        chunks += self._admit(budget, settled, may_split_block=len(chunks) == num_streams)
        if not chunks:
            return None
        return Schedule(
            [c for c in chunks if c.length == 1], [c for c in chunks if c.length > 1], self._kv.take_copies()
        )

    def finish(self, request: Request) -> None:
        """Take a request out and give its blocks back: the only place where blocks are freed for good."""
        (self.running if request in self.running else self.waiting).remove(request)
        self._kv.free(request)

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
            if not request.block_table or self._reaches_its_length(request):
                continue  # preempted for an earlier row, or its last token is in flight
            if (chunk := self._allocate_or_preempt(request, 1 + num_spare)) is not None:
                num_spare -= chunk.length - 1
                chunks.append(chunk)
        return chunks

    def _schedule_running_prompts(self, prompts: Sequence[Request], budget: int, *, may_preempt: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        for request in prompts:
            if budget == 0 or not request.block_table or request.num_computed_tokens == request.num_ready_tokens:
                continue
            if may_preempt and not chunks:
                chunk = self._allocate_or_preempt(request, budget)
            else:
                chunk = self._allocate(request, budget, may_split_block=not chunks)
            if chunk is not None:
                chunks.append(chunk)
                budget -= chunk.length
        return chunks

    def _num_settled_tokens(self) -> Mapping[Request, int]:
        """How many tokens of each running request earlier forwards compute; empty when nobody waits for a parent."""
        if all(request.parent is None for request in self.waiting):
            return {}
        return {request: request.num_computed_tokens for request in self.running}

    def _admit(self, budget: int, settled: Mapping[Request, int], *, may_split_block: bool) -> list[Chunk]:
        """Start waiting requests in order, as long as their whole prompts fit beside those that already run.

        One that waits for its parent, or for its grammar with nothing else to compute, is passed over.
        """
        # One that was preempted in this step may come back in it, and has settled nothing then.
        settled = {request: count for request, count in settled.items() if request.block_table}
        chunks: list[Chunk] = []
        for request in list(self.waiting):
            if budget == 0 or len(self.running) == self._config.max_num_seqs:
                break
            if self._waits_for_parent(request, settled):
                continue
            reserved = sum(self._kv.num_missing_blocks(running) for running in self.running)
            if self.running and self._kv.num_missing_blocks(request) + reserved > self._kv.pool.num_available:
                break
            if (chunk := self._allocate(request, budget, may_split_block=may_split_block and not chunks)) is None:
                if request.grammar is not None:
                    continue
                break
            self.waiting.remove(request)
            self.running.append(request)
            request.started_at = request.started_at or time.perf_counter()
            chunks.append(chunk)
            budget -= chunk.length
        return chunks

    def _waits_for_parent(self, request: Request, settled: Mapping[Request, int]) -> bool:
        """Whether it is worth waiting for the parent's KV; a parent that has nothing to give is dropped.

        What the parent computes in this very step is not there yet when a block of it is copied.
        """
        parent = request.parent
        if parent is None:
            return False
        if parent.block_table:  # it runs
            return settled.get(parent, 0) < request.num_tokens - 1
        if not parent.is_finished and _rank(parent) < _rank(request):
            return True
        request.parent = None
        return False

    def _allocate(self, request: Request, budget: int, *, may_split_block: bool = True) -> Chunk | None:
        """Only a step's first prompt may end within a block.

        What the first leaves of the budget is often too little for a block; another prompt that took it could not match
        at a border any more, and would compute what the first one is computing.
        """
        length = self._kv.allocate(request, budget, may_split_block=may_split_block)
        if length is None:
            return None
        end = request.num_computed_tokens
        return Chunk(request, end - length, length, is_sampled=end == request.num_tokens)

    def _allocate_or_preempt(self, request: Request, budget: int) -> Chunk | None:
        """Allocate, taking blocks from the last-ranked request until there is room; None when that was this one.

        Requests are scheduled in their rank's order, so a victim never has work in this step already.
        """
        while (chunk := self._allocate(request, budget)) is None:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return None
        return chunk

    def _preempt(self, request: Request) -> None:
        self._kv.free(request)
        self.running.remove(request)
        self.waiting.insert(0, request)
        request.num_preemptions += 1
        self.num_preemptions += 1

    def _reaches_its_length(self, request: Request) -> bool:
        """Whether the token in flight is the last one that max_tokens or the context allow."""
        return request.num_output_tokens >= request.params.max_tokens or request.num_tokens >= self._max_model_len


def _rank(request: Request) -> tuple[float, int]:
    """Lower goes first. Waiting raises every request's priority alike, so the order of two never changes."""
    return (request.submitted_at - PRIORITY_AGING_SECONDS * request.params.priority, request.request_id)
