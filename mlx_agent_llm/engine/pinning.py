"""Pinning: prompts that are computed ahead of the requests that begin with them, and stay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from mlx_agent_llm.engine.admission import Admission
from mlx_agent_llm.engine.batch_call import BatchCall
from mlx_agent_llm.engine.prompt import Prompt
from mlx_agent_llm.engine.worker import Worker
from mlx_agent_llm.errors import EngineClosedError
from mlx_agent_llm.request import Delta, RequestOutput


@dataclass(frozen=True)
class PinnedPrompt:
    """A prompt that stays in the KV pool; num_pinned_tokens: after which requests that begin with it go on.

    Whole blocks alone are pinned, and of a chat, where the model has recurrent layers, what its last message ends; so 0
    of a prompt shorter than a block. num_cached_tokens were there or on the disk and not computed. pin_id: its name for
    unpin.
    """

    pin_id: int
    num_tokens: int
    num_cached_tokens: int
    num_pinned_tokens: int


class Pinning:
    """Pins and unpins prompts of one engine, from any thread; one call computes at a time."""

    def __init__(self, worker: Worker, admission: Admission) -> None:
        self._worker = worker
        self._admission = admission
        self._lock = threading.Lock()

    def pin(self, prompts: Sequence[Prompt], tools: Sequence[Any] | None) -> list[PinnedPrompt]:
        """Compute prompts, as one batch, and pin what they leave; all of them or none."""
        submissions = self._admission.pinned(prompts, tools)
        requests = [each.request(_ignore, each.seed, perf_counter()) for each in submissions]
        ids = [each.request_id for each in submissions]
        with self._lock:
            self._worker.call(lambda core: core.scheduler.reserve_pins(requests))
            call = BatchCall(self._worker, submissions)
            try:
                call.start()
                outputs = call.result()
            except BaseException:
                call.cancel()
                with suppress(EngineClosedError):  # which unpins everything
                    self.unpin(ids)
                raise
            finally:
                call.cancel()
        return [self._pinned(*pair) for pair in zip(ids, outputs, strict=True)]

    def unpin(self, pin_ids: Sequence[int] | None) -> None:
        """Let these be evicted again, or all that are pinned; returns when it is done."""
        self._worker.call(lambda core: core.kv_manager.pins.drop(pin_ids))

    def _pinned(self, pin_id: int, output: RequestOutput) -> PinnedPrompt:
        num_pinned = self._worker.core.kv_manager.pins.num_tokens(pin_id)
        return PinnedPrompt(pin_id, output.usage.prompt_tokens, output.usage.cached_tokens, num_pinned)


def _ignore(delta: Delta) -> None:
    """Of a request that is asked for its hashes alone."""
