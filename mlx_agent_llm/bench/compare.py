"""Our engine and mlx-lm's BatchGenerator on the same workload, one after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from mlx_agent_llm.bench.workload import Workload
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import SamplingParams


@dataclass(frozen=True)
class Measurement:
    """One run. all_started: seconds until every request had its first token; decode: tokens per second from then on."""

    total_seconds: float
    all_started_seconds: float
    decode_tokens_per_second: float


@dataclass(frozen=True)
class Comparison:
    """The best of the runs of each, taken in turns because machines are noisy."""

    workload: Workload
    ours: Measurement
    mlx_lm: Measurement

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast ours is."""
        return {
            "total": self.mlx_lm.total_seconds / self.ours.total_seconds,
            "all started": self.mlx_lm.all_started_seconds / self.ours.all_started_seconds,
            "decode": self.ours.decode_tokens_per_second / self.mlx_lm.decode_tokens_per_second,
        }


def compare(loaded: LoadedModel, workload: Workload, repeats: int = 1) -> Comparison:
    """Measure both, `repeats` times in turns, after a short run of each that warms them up."""
    warm_up = Workload("warm-up", [prompt[:16] for prompt in workload.prompts[:2]], 4)
    _run_ours(loaded, warm_up)
    _run_mlx_lm(loaded, warm_up)
    runs = [(_run_ours(loaded, workload), _run_mlx_lm(loaded, workload)) for _ in range(repeats)]
    return Comparison(workload, _best([ours for ours, _ in runs]), _best([peer for _, peer in runs]))


def _best(runs: list[Measurement]) -> Measurement:
    return Measurement(
        min(run.total_seconds for run in runs),
        min(run.all_started_seconds for run in runs),
        max(run.decode_tokens_per_second for run in runs),
    )


class _Clock:
    """Notes when tokens arrive."""

    def __init__(self, num_requests: int) -> None:
        self._started_at = time.perf_counter()
        self._num_requests = num_requests
        self._first: dict[int, float] = {}
        self._arrivals: list[float] = []

    def note(self, request: int, num_tokens: int) -> None:
        now = time.perf_counter() - self._started_at
        self._first.setdefault(request, now)
        self._arrivals += [now] * num_tokens

    def read(self) -> Measurement:
        assert len(self._first) == self._num_requests, "a request got no token"
        all_started, end = max(self._first.values()), max(self._arrivals)
        num_decoded = sum(moment > all_started for moment in self._arrivals)
        return Measurement(end, all_started, num_decoded / max(end - all_started, 1e-9))


def _run_ours(loaded: LoadedModel, workload: Workload) -> Measurement:
    config = EngineConfig(max_num_seqs=max(len(workload.prompts), 1))
    params = SamplingParams(max_tokens=workload.num_new, ignore_eos=True)
    with Engine(loaded, config) as engine:
        clock = _Clock(len(workload.prompts))

        async def consume(request: int, prompt: list[int]) -> None:
            async for delta in engine.astream(prompt, params):
                clock.note(request, len(delta.token_ids))

        async def consume_all() -> None:
            await asyncio.gather(*(consume(index, prompt) for index, prompt in enumerate(workload.prompts)))

        asyncio.run(consume_all())
        return clock.read()


def _run_mlx_lm(loaded: LoadedModel, workload: Workload) -> Measurement:
    """mlx-lm with its own settings, but for room for all requests at once and no end token."""
    generator = BatchGenerator(
        loaded.model, max_tokens=workload.num_new, stop_tokens=[], completion_batch_size=len(workload.prompts)
    )
    try:
        clock = _Clock(len(workload.prompts))
        generator.insert(workload.prompts)
        left = len(workload.prompts) * workload.num_new
        while left > 0:
            _, responses = generator.next()
            for response in responses:
                clock.note(response.uid, 1)
            left -= len(responses)
        return clock.read()
    finally:
        generator.close()
        mx.clear_cache()
