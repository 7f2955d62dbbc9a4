"""Delivery: one submission on the engine's thread, from its first request to its last delta."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from mlx_agent_llm.core.answers import Emission
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.engine.queue_limit import QueueLimit
from mlx_agent_llm.engine.request_log import log_end
from mlx_agent_llm.engine.resampling import CheckedDelivery
from mlx_agent_llm.engine.submission import ForkOf, New, Receiver, SampleOf, Submission
from mlx_agent_llm.request import Delta, Request


class Delivery:
    """Makes the requests of a submission and hands their deltas on; its place in the queue is free with the last one.

    There is one request, or, for a value that has to be checked, as many as it takes. Their timeout begins when this is
    made.
    """

    def __init__(self, submission: Submission, receiver: Receiver, limit: QueueLimit) -> None:
        self._submission = submission
        self._submitted_at = time.perf_counter()
        self._receiver = receiver
        self._limit = limit
        self._checked: CheckedDelivery | None = None
        self._count_end: Callable[[Delta], None] | None = None  # the core's

    def start(self, core: EngineCore) -> list[Emission]:
        """Give the core the first request; what it emits at once."""
        self._count_end = core.meter.requests.count_end
        submission = self._submission
        if submission.prepared is not None and submission.prepared.checked:
            again = partial(self._sample_again, core)
            checked = submission.prepared.checked
            self._checked = CheckedDelivery(submission.params, submission.seed, checked, self._deliver, again)
        request = self._request(submission.seed)
        match submission.origin:
            case New():
                core.add(request)
            case SampleOf(leader_id):
                core.add(request, leader_id)
            case ForkOf(parent_id):
                return core.fork(request, parent_id)
        return []

    def _sample_again(self, core: EngineCore, seed: int) -> None:
        """At once, so that no cancellation slips in between two attempts."""
        core.add(self._request(seed))

    def _request(self, seed: int) -> Request:
        return self._submission.request(self._checked or self._deliver, seed, self._submitted_at)

    def _deliver(self, delta: Delta) -> None:
        if delta.finish_reason is not None:
            self._limit.leave()
            assert self._count_end is not None, "nothing is delivered before the start"
            self._count_end(delta)
            log_end(self._submission.request_id, self._submission.params.trace_id, delta)
        self._receiver.deliver(delta)
