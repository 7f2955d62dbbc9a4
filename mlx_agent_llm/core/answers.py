"""Answers: the open requests and every delta that they get, kept until the step hands them out.

A fault in one request's matcher or text is its own: the request fails, and whoever gave it a token goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mlx_agent_llm.core.faults import as_error
from mlx_agent_llm.core.output.forking import replay
from mlx_agent_llm.core.output.logprobs import closing_logprobs
from mlx_agent_llm.core.output.sampler import Sampler
from mlx_agent_llm.core.output.stopping import Stopping
from mlx_agent_llm.core.schedule.grammar_wait import take_matcher
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.stats import StepMeter
from mlx_agent_llm.errors import RequestTimeout
from mlx_agent_llm.request import Delta, FinishReason, Request, TokenLogprob


class Emission(NamedTuple):
    """A delta and the request it belongs to."""

    request: Request
    delta: Delta


class Answers:
    """Gives tokens to requests, and lets go of a request with its last delta."""

    def __init__(self, stopping: Stopping, scheduler: Scheduler, sampler: Sampler, meter: StepMeter) -> None:
        self.open: dict[int, Request] = {}
        self._stopping = stopping
        self._scheduler = scheduler
        self._sampler = sampler
        self._meter = meter
        self._emissions: list[Emission] = []

    def add(self, request: Request) -> None:
        """Open a request and queue it."""
        self.open[request.request_id] = request
        self._scheduler.add(request)

    def advance(self, request: Request, token_id: int, logprob: TokenLogprob | None) -> None:
        """Give a request the token that was sampled for it."""
        try:
            delta = self._stopping.advance(request, token_id)
            if logprob is not None:
                logprobs = closing_logprobs(delta.token_ids) if delta.forced_close else (logprob,)
                request.logprobs += logprobs
                delta = delta._replace(logprobs=logprobs)
        except Exception as fault:
            self.fail(request, fault)
        else:
            self._count(request, delta)

    def force(self, request: Request, token_ids: Sequence[int]) -> None:
        """Give a request the tokens that its grammar leaves no choice about."""
        try:
            delta = self._stopping.advance_all(request, token_ids)
        except Exception as fault:
            self.fail(request, fault)
        else:
            request.num_jumped_tokens = max(request.num_tokens - request.kv.num_computed_tokens, 0)
            self._meter.num_forced_tokens += 0 if delta.forced_close else len(delta.token_ids)
            self._count(request, delta)

    def fork(self, request: Request, parent: Request | None) -> None:
        """Give a request what its parent has put out by now; its grammar has to be compiled."""
        try:
            if request.grammar is not None:
                take_matcher(request)
            delta = replay(self._stopping, request, parent)
        except Exception as fault:
            self.fail(request, fault)
        else:
            if delta.token_ids:
                self._emit(request, delta)

    def end(self, request: Request, reason: FinishReason) -> None:
        """End a request with the text so far."""
        try:
            delta = self._stopping.end(request, reason)
        except Exception as fault:
            self.fail(request, fault)
        else:
            self._emit(request, delta)

    def fail(self, request: Request, fault: Exception) -> None:
        """End a request with an error."""
        self._emit(request, self._stopping.fail(request, as_error(fault)))

    def fail_each(self, requests: Iterable[Request], fault: Exception) -> None:
        """End several requests with an error; it may be the very collection that they leave by that."""
        for request in list(requests):
            self.fail(request, fault)

    def time_out(self) -> None:
        """Fail the requests that are not done in their time."""
        now = time.perf_counter()
        for request in [one for one in self.open.values() if one.deadline is not None and one.deadline < now]:
            timeout = f"timeout={request.params.timeout} s"
            self.fail(request, RequestTimeout(f"request {request.request_id} did not finish within {timeout}"))

    def hand_out(self) -> list[Emission]:
        """What was given since the last call."""
        emissions, self._emissions = self._emissions, []
        return emissions

    def _count(self, request: Request, delta: Delta) -> None:
        if request.first_token_at is None:
            request.first_token_at = time.perf_counter()
        self._meter.num_generated_tokens += len(delta.token_ids)
        self._emit(request, delta)

    def _emit(self, request: Request, delta: Delta) -> None:
        self._emissions.append(Emission(request, delta))
        if delta.finish_reason is not None:
            del self.open[request.request_id]
            self._sampler.forget(request)
            self._scheduler.finish(request)
