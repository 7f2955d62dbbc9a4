"""Submission: a request that was checked, on its way to the engine's thread, which makes the row that is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlx_agent_llm.chat import PreparedChat
from mlx_agent_llm.constrain.closing.close_in_time import CloseInTime
from mlx_agent_llm.constrain.reasoning import ReasoningLimit
from mlx_agent_llm.constrain.service import Prepared
from mlx_agent_llm.request import Delta, Request, SamplingParams


@dataclass(frozen=True)
class New:
    """A request that shares no more than the prefix cache finds."""


@dataclass(frozen=True)
class SampleOf:
    """A further sample of the prompt that the request leader_id computes."""

    leader_id: int


@dataclass(frozen=True)
class ForkOf:
    """A request that goes on from the tokens that the request parent_id has by now."""

    parent_id: int


Origin = New | SampleOf | ForkOf


@dataclass(frozen=True)
class Submission:
    """A request that was checked: one sample, with its constraint being compiled. seed: of the first attempt."""

    request_id: int
    token_ids: Sequence[int]
    params: SamplingParams
    seed: int
    prepared: Prepared | None
    chat: PreparedChat | None
    reasoning_limit: ReasoningLimit | None
    origin: Origin
    draft_text: Sequence[int] = ()  # the tokens of params.draft_text
    adapter: str | None = None  # the fingerprint of the adapter that the engine runs with
    message_ends: Sequence[int] = ()  # after how many tokens the messages of a chat end

    def request(self, sink: Callable[[Delta], None], seed: int, submitted_at: float) -> Request:
        """The row of one attempt, whose deltas go to the sink; submitted_at: of the first one, by perf_counter."""
        request = Request(
            self.request_id,
            self.token_ids,
            self.params,
            seed,
            sink,
            submitted_at=submitted_at,
            adapter=self.adapter,
            message_ends=self.message_ends,
        )
        request.draft_text = self.draft_text
        if self.prepared is not None:
            request.grammar, request.budget = self.prepared.compiled, CloseInTime(self.prepared.closing)
        if self.chat is not None:
            request.shown_tokens = self.chat.shown_tokens
            request.free_text = self.chat.free_text
        if self.reasoning_limit is not None:
            request.matcher, request.grammar = self.reasoning_limit.applied_to(request.grammar)
        return request


class Receiver(Protocol):
    """Where the deltas of a submission go."""

    def deliver(self, delta: Delta) -> None:
        """Take a delta; the engine's thread calls this, and the last one has a finish_reason."""
