"""How the workloads run our engine: streams on one event loop, as agents would read them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mlx_agent_llm.bench.arrivals import Arrivals
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.step_clock import StepRecord
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import SamplingParams


def config_for(rows: int, *, prefix_cache: bool = True) -> EngineConfig:
    """The engine's own settings, but for room for `rows` requests at once, and without drafts, which no peer has."""
    max_tokens_per_step = max(EngineConfig.max_tokens_per_step, rows)
    return EngineConfig(
        max_num_seqs=rows, max_tokens_per_step=max_tokens_per_step, prefix_cache=prefix_cache, speculation="off"
    )


def fixed_length(num_new: int) -> SamplingParams:
    """Greedy, `num_new` tokens whatever they say."""
    return SamplingParams(max_tokens=num_new, temperature=0.0, ignore_eos=True)


async def consume(engine: Engine, prompt: list[int], num_new: int, request: int, arrivals: Arrivals) -> None:
    """Read one stream to its end and note its tokens."""
    async for delta in engine.astream(prompt, fixed_length(num_new)):
        arrivals.note(request, len(delta.token_ids))


def stream_all(engine: Engine, prompts: Sequence[list[int]], num_new: int) -> Arrivals:
    """Let all prompts arrive together."""
    arrivals = Arrivals()

    async def run() -> None:
        await asyncio.gather(*(consume(engine, prompt, num_new, i, arrivals) for i, prompt in enumerate(prompts)))

    asyncio.run(run())
    return arrivals


def decode_steps(engine: Engine, rows: int, num_earlier: int = 0) -> list[StepRecord]:
    """The remembered steps, after the engine's first `num_earlier` ones, that did nothing but decode all rows.

    Raises RequestError when there is none: the rows never ran all at once.
    """
    num_later = engine.stats().num_steps - num_earlier
    records = engine._worker.core.meter.clock.records[-num_later:]
    steps = [record for record in records if record.num_sampled == rows and record.num_prompt_tokens == 0]
    if not steps:
        raise RequestError(
            f"rows={rows}: no step decoded all of them at once; the KV pool holds fewer, give fewer rows"
        )
    return steps
