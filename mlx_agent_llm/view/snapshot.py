"""Snapshot: what the view shows of an engine. Knows neither a screen nor where the numbers come from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_agent_llm.core.stats import EngineStats


@dataclass(frozen=True)
class Snapshot:
    """The counts of one engine at a moment, in seconds of time.monotonic; times of steps are means, in seconds.

    engine: tells it from others of the same model; "" where there is one.
    """

    engine: str
    model: str
    moment: float
    num_running: int
    num_waiting: int
    num_blocks: int
    num_used_blocks: int
    num_shared_blocks: int
    num_cached_blocks: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    num_prompt_tokens_computed: int
    num_generated_tokens: int
    num_preemptions: int
    mean_batch_size: float
    mean_step_time: float
    mean_phase_times: Mapping[str, float]

    @property
    def prefix_hit_rate(self) -> float:
        """The part of all prompt tokens so far that was found."""
        return self.prefix_hit_tokens / self.prefix_query_tokens if self.prefix_query_tokens else 0.0


class Rates:
    """Tokens a second from one snapshot to the next; generated and prompt tokens."""

    def __init__(self, before: Snapshot, now: Snapshot) -> None:
        seconds = max(now.moment - before.moment, 1e-9)
        self.generated = (now.num_generated_tokens - before.num_generated_tokens) / seconds
        self.prompt = (now.num_prompt_tokens_computed - before.num_prompt_tokens_computed) / seconds


def snapshot_of(model: str, stats: EngineStats) -> Snapshot:
    """What the view shows of an engine of this process, as of now."""
    return Snapshot(
        engine="",
        model=model,
        moment=time.monotonic(),
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        num_blocks=stats.num_blocks,
        num_used_blocks=stats.num_used_blocks,
        num_shared_blocks=stats.num_shared_blocks,
        num_cached_blocks=stats.num_cached_blocks,
        prefix_query_tokens=stats.prefix_query_tokens,
        prefix_hit_tokens=stats.prefix_hit_tokens,
        num_prompt_tokens_computed=stats.num_prompt_tokens_computed,
        num_generated_tokens=stats.num_generated_tokens,
        num_preemptions=stats.num_preemptions,
        mean_batch_size=stats.mean_batch_size,
        mean_step_time=stats.mean_step_time,
        mean_phase_times={str(phase): seconds for phase, seconds in stats.mean_phase_times.items()},
    )
