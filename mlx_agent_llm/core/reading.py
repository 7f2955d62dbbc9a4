"""Reading: what a step sampled goes to the requests that it is for, and how long it took to those who learn from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlx_agent_llm.core.answers import Answers
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.output.samples import Samples
from mlx_agent_llm.core.output.verification import Verdict, forced_after, verify
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.schedule.speculation.row_costs import StepTime
from mlx_agent_llm.core.schedule.speculation.speculation import Speculation
from mlx_agent_llm.core.stats import StepMeter
from mlx_agent_llm.request import NO_DRAFT, Request, TokenLogprob


class InFlight(NamedTuple):
    """What the last step sampled and nobody has read yet."""

    samples: Samples
    receivers: Sequence[Request | None]  # (S,) whose they are; None of a row that ended, or whose next token was forced
    batch: Batch  # that they were sampled from
    is_overlapped: bool  # whether this was dispatched before the samples before it were read


class Reading:
    """Waits for samples, and lets each request take its own."""

    def __init__(
        self,
        runner: ModelRunner,
        kv_manager: KVManager,
        scheduler: Scheduler,
        answers: Answers,
        fail_spoiled: Callable[[Sequence[Request]], None],
        speculation: Speculation,
        meter: StepMeter,
    ) -> None:
        self._runner = runner
        self._kv = kv_manager
        self._scheduler = scheduler
        self._answers = answers
        self._fail_spoiled = fail_spoiled
        self._speculation = speculation
        self._meter = meter
        self._ready_at: float | None = None  # when the last step's tokens were there

    def advance(self, in_flight: InFlight | None) -> None:
        """Read the last step's tokens, let each request take its own, and end those that are done."""
        if in_flight is None:
            self._ready_at = None
            return
        samples, batch = in_flight.samples, in_flight.batch
        with self._meter.clock.phase("wait"):
            token_ids, is_finite = samples.read()
        self._observe(in_flight)
        if not all(is_finite):
            self._fail_spoiled(
                [request for request, is_sound in zip(batch.sampled, is_finite, strict=True) if not is_sound]
            )
        logprobs = samples.read_logprobs(token_ids, batch.sampled)
        if any(batch.places):
            for verdict in verify(batch.sampled, token_ids):
                self._take(verdict, in_flight.receivers, token_ids, logprobs)
        else:
            for receiver, token_id, logprob in zip(in_flight.receivers, token_ids, logprobs, strict=True):
                if receiver is not None:
                    self._give(receiver, token_id, logprob)
        self._speculation.follow(batch.sampled)

    def _take(
        self,
        verdict: Verdict,
        receivers: Sequence[Request | None],
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob | None],
    ) -> None:
        """Give a request what was sampled for it, as far as that counts, and what its grammar forces in between."""
        request, begin, num_rows, num_right = verdict
        draft, request.draft = request.draft, NO_DRAFT
        if draft.token_ids:
            if not request.is_finished:
                self._kv.settle(request, len(draft.token_ids), num_right)
            self._meter.count_draft(len(draft.token_ids), num_right)
        for row, place in zip(range(begin, begin + num_rows), draft.places, strict=False):
            if receivers[row] is None:
                continue
            self._give(request, token_ids[row], logprobs[row])
            if not request.is_finished and place < num_right and (forced := forced_after(draft, place)):
                self._answers.force(request, forced)
        if draft.token_ids:
            request.num_jumped_tokens = max(request.num_tokens - request.kv.num_computed_tokens, 0)

    def _give(self, request: Request, token_id: int, logprob: TokenLogprob | None) -> None:
        request.num_in_flight = 0
        if not request.is_finished:
            # What was computed before it is sound; of one that was preempted meanwhile, what is computed again.
            request.kv.num_trusted_tokens = min(len(request.token_ids), request.kv.num_computed_tokens)
            self._answers.advance(request, token_id, logprob)

    def _observe(self, in_flight: InFlight) -> None:
        """Tell the pacer how long the step took whose tokens were read just now, if it came right after another."""
        batch = in_flight.batch
        last_ready_at, self._ready_at = self._ready_at, self._runner.take_ready_at() or time.perf_counter()
        if last_ready_at is None or batch.num_tokens == batch.num_prompt_tokens:
            return
        seconds = self._ready_at - last_ready_at
        self._scheduler.pacer.observe(batch.num_prompt_tokens, seconds)
        # Of a stream whose grammar forced tokens several were computed, and a prompt that ended was sampled from.
        num_streams = min(batch.num_tokens - batch.num_prompt_tokens, batch.num_streams)
        self._meter.requests.count_gap(seconds, num_streams)
        if batch.num_prompt_tokens == 0:
            step = StepTime(batch.num_streams, batch.num_draft_tokens, seconds, in_flight.is_overlapped)
            self._speculation.observe(step)
