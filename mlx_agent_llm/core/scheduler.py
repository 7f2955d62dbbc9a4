"""Who runs this step: the token budget, priorities, admission and preemption. Knows no arrays and no model.

There is no prefill phase and no decode phase (as in vLLM v1): a request has num_computed_tokens, and a step brings it
closer to num_tokens within the budget. Decode rows come first, so that a long prompt never stalls a running stream.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv_manager import KVManager
from mlx_agent_llm.errors import CapacityError, ContextLengthError
from mlx_agent_llm.request import Request


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
        self.running.sort(key=_rank)
        self.waiting.sort(key=_rank)
        chunks = self._schedule_decode()
        num_decode_rows = len(chunks)
        chunks += self._schedule_running_prompts(self._config.max_tokens_per_step - num_decode_rows)
        budget = self._config.max_tokens_per_step - sum(chunk.length for chunk in chunks)
        chunks += self._admit(budget, may_split_block=len(chunks) == num_decode_rows)
        if not chunks:
            return None
        return Schedule([c for c in chunks if c.length == 1], [c for c in chunks if c.length > 1])

    def finish(self, request: Request) -> None:
        """Take a request out and give its blocks back: the only place where blocks are freed for good."""
        (self.running if request in self.running else self.waiting).remove(request)
        self._kv.free(request)

    def _schedule_decode(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for request in [request for request in self.running if _is_decoding(request)]:
            if request not in self.running or self._reaches_its_length(request):
                continue  # preempted for an earlier row, or its last token is in flight
            if (chunk := self._allocate_or_preempt(request, 1)) is not None:
                chunks.append(chunk)
        return chunks

    def _schedule_running_prompts(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        # With nothing that decodes, and so nothing that ends, waiting for blocks would be waiting for ever.
        may_preempt = not any(_is_decoding(request) for request in self.running)
        for request in [request for request in self.running if not _is_decoding(request)]:
            if budget == 0 or request not in self.running:
                continue
            if may_preempt and not chunks:
                chunk = self._allocate_or_preempt(request, budget)
            else:
                chunk = self._allocate(request, budget, may_split_block=not chunks)
            if chunk is not None:
                chunks.append(chunk)
                budget -= chunk.length
        return chunks

    def _admit(self, budget: int, *, may_split_block: bool) -> list[Chunk]:
        """Start waiting requests in order, as long as their whole prompts fit beside those that already run."""
        chunks: list[Chunk] = []
        while self.waiting and budget > 0 and len(self.running) < self._config.max_num_seqs:
            request = self.waiting[0]
            reserved = sum(self._kv.num_missing_blocks(running) for running in self.running)
            if self.running and self._kv.num_missing_blocks(request) + reserved > self._kv.pool.num_available:
                break
            if (chunk := self._allocate(request, budget, may_split_block=may_split_block and not chunks)) is None:
                break
            self.running.append(self.waiting.pop(0))
            request.started_at = request.started_at or time.perf_counter()
            chunks.append(chunk)
            budget -= chunk.length
        return chunks

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


def _is_decoding(request: Request) -> bool:
    return request.num_tokens - request.num_computed_tokens <= 1 and request.num_output_tokens > 0


def _rank(request: Request) -> tuple[int, int]:
    return (-request.params.priority, request.request_id)
