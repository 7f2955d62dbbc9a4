"""What several engines of one model have counted, one after the other."""

from __future__ import annotations

from dataclasses import fields, replace

from mlx_agent_llm.core.histogram import HistogramCounts
from mlx_agent_llm.core.request_meter import RequestStats
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.core.tiering.tiering import TierStats

_COUNTS = (
    "num_evictions",
    "prefix_query_tokens",
    "prefix_hit_tokens",
    "prefix_miss_tokens",
    "num_steps",
    "num_prompt_tokens_computed",
    "num_generated_tokens",
    "num_forced_tokens",
    "num_drafted_tokens",
    "num_accepted_tokens",
    "num_preemptions",
    "num_memory_reliefs",
)
_TIER_COUNTS = ("num_written_bytes", "num_read_bytes", "num_hit_tokens", "read_seconds")


def summed_stats(earlier: EngineStats | None, now: EngineStats) -> EngineStats:
    """The later engine's stats, with the counts of both; rates and means stay those of the later one."""
    if earlier is None:
        return now
    counts = {name: getattr(earlier, name) + getattr(now, name) for name in _COUNTS}
    requests = _summed_requests(earlier.requests, now.requests)
    return replace(now, **counts, requests=requests, tier=_summed_tier(earlier.tier, now.tier))


def _summed_requests(earlier: RequestStats, now: RequestStats) -> RequestStats:
    num_finished = {reason: count + earlier.num_finished[reason] for reason, count in now.num_finished.items()}
    names = [field.name for field in fields(now) if field.name != "num_finished"]
    histograms = {name: _summed_histogram(getattr(earlier, name), getattr(now, name)) for name in names}
    return RequestStats(num_finished=num_finished, **histograms)


def _summed_histogram(earlier: HistogramCounts, now: HistogramCounts) -> HistogramCounts:
    counts = tuple(sum(pair) for pair in zip(earlier.counts, now.counts, strict=True))
    return HistogramCounts(now.bounds, counts, earlier.total + now.total)


def _summed_tier(earlier: TierStats | None, now: TierStats | None) -> TierStats | None:
    if earlier is None or now is None:
        return now
    return replace(now, **{name: getattr(earlier, name) + getattr(now, name) for name in _TIER_COUNTS})
