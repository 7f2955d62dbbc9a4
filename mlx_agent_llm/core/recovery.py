"""Recovery: what has to be given up when a step broke, or when its logits are not finite, and what goes on."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_agent_llm.core.answers import Answers
from mlx_agent_llm.core.faults import drop_locals
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.errors import GenerationError
from mlx_agent_llm.request import Request


class Recovery:
    """Fails the requests that a fault concerns, and takes away what others could be wrong by."""

    def __init__(self, runner: ModelRunner, kv_manager: KVManager, scheduler: Scheduler, answers: Answers) -> None:
        self._runner = runner
        self._kv = kv_manager
        self._scheduler = scheduler
        self._answers = answers

    def recover(self, fault: Exception) -> Exception | None:
        """Fail what ran; when not even that works, fail everything and return what was in the way."""
        try:
            self._fail_running(fault)
        except Exception as worse:
            self._answers.fail_each(self._answers.open.values(), worse)
            return worse
        return None

    def fail_spoiled(self, requests: Sequence[Request]) -> None:
        """Fail requests whose logits are not finite, and let nobody find what may have made them so."""
        self._kv.withdraw(requests, self._scheduler.running)
        for request in requests:
            if not request.is_finished:
                after = f"after {len(request.token_ids)} tokens"
                error = GenerationError(f"request {request.request_id}: the model's logits are not finite {after}")
                self._answers.fail(request, error)

    def _fail_running(self, fault: Exception) -> None:
        """After a fault in a forward nobody knows what the pools hold: running requests fail, the pools are made anew.

        Waiting requests hold no blocks; they run as soon as the engine goes on.
        """
        drop_locals(fault)
        self._runner.reset()  # first: when that fails too, the requests are still open
        self._answers.fail_each(self._scheduler.running, fault)
        for request in self._scheduler.waiting:
            request.num_in_flight = 0  # a token lost in flight is sampled again, the same one
        self._kv.forget()
        self._kv.end_step()  # one that broke before its forward
