"""Which number of an engine's stats is which metric. Names that begin with vllm: mean what they mean there.

Several of vLLM's names were given up for others; both are here, because dashboards of both ages read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mlx_agent_llm.core.histogram import HistogramCounts
from mlx_agent_llm.core.stats import EngineStats


class Number(NamedTuple):
    """A metric that is one number."""

    name: str
    help: str
    read: Callable[[EngineStats], float]


class Distribution(NamedTuple):
    """A metric that is a histogram."""

    name: str
    help: str
    read: Callable[[EngineStats], HistogramCounts]


def _kv_cache_usage(stats: EngineStats) -> float:
    return stats.num_used_blocks / stats.num_blocks if stats.num_blocks else 0.0


def _of_tier(name: str) -> Callable[[EngineStats], float]:
    """A number of the stats' tier, 0 of an engine without one."""
    return lambda stats: 0.0 if stats.tier is None else getattr(stats.tier, name)


_QUERIES, _HITS = "Prompt tokens that were looked up in the prefix cache.", "Prompt tokens found in the prefix cache."
_USAGE, _GAP = "The part of the KV blocks that requests hold, 0 to 1.", "Seconds between two tokens of a stream."

GAUGES = (
    Number("vllm:num_requests_running", "Requests that run.", lambda stats: stats.num_running),
    Number("vllm:num_requests_waiting", "Requests that wait to run.", lambda stats: stats.num_waiting),
    Number("vllm:kv_cache_usage_perc", _USAGE, _kv_cache_usage),
    Number("vllm:gpu_cache_usage_perc", _USAGE, _kv_cache_usage),
    Number("mlx_agent:kv_cache_bytes", "Memory of the KV pools.", lambda stats: stats.kv_cache_bytes),
    Number("mlx_agent:kv_blocks", "KV blocks of the pool.", lambda stats: stats.num_blocks),
    Number("mlx_agent:kv_blocks_free", "KV blocks that hold nothing.", lambda stats: stats.num_free_blocks),
    Number("mlx_agent:kv_blocks_cached", "KV blocks kept for later prompts.", lambda stats: stats.num_cached_blocks),
    Number("mlx_agent:kv_blocks_shared", "KV blocks of several requests.", lambda stats: stats.num_shared_blocks),
    Number("mlx_agent:kv_blocks_pinned", "KV blocks that are not evicted.", lambda stats: stats.num_pinned_blocks),
    Number("mlx_agent:kv_tier_bytes", "All KV in the folder on disk.", _of_tier("num_bytes")),
    Number("mlx_agent:state_slots", "Slots for states of recurrent layers.", lambda stats: stats.num_state_slots),
    Number("mlx_agent:state_slots_free", "Slots that hold no state.", lambda stats: stats.num_free_state_slots),
    Number("mlx_agent:step_seconds_mean", "Mean of the last 1,000 steps.", lambda stats: stats.mean_step_time),
    Number("mlx_agent:step_seconds_max", "Longest of the last 1,000 steps.", lambda stats: stats.max_step_time),
    Number("mlx_agent:batch_size_mean", "Rows sampled in a mean step.", lambda stats: stats.mean_batch_size),
)

COUNTERS = (
    Number("vllm:prompt_tokens", "Prompt tokens that were computed.", lambda stats: stats.num_prompt_tokens_computed),
    Number("vllm:generation_tokens", "Tokens that were generated.", lambda stats: stats.num_generated_tokens),
    Number("vllm:num_preemptions", "Requests put back to wait.", lambda stats: stats.num_preemptions),
    Number("vllm:prefix_cache_queries", _QUERIES, lambda stats: stats.prefix_query_tokens),
    Number("vllm:prefix_cache_hits", _HITS, lambda stats: stats.prefix_hit_tokens),
    Number("vllm:gpu_prefix_cache_queries", _QUERIES, lambda stats: stats.prefix_query_tokens),
    Number("vllm:gpu_prefix_cache_hits", _HITS, lambda stats: stats.prefix_hit_tokens),
    Number("mlx_agent:steps", "Steps.", lambda stats: stats.num_steps),
    Number("mlx_agent:forced_tokens", "Tokens that a grammar left no choice about.", lambda s: s.num_forced_tokens),
    Number("mlx_agent:evictions", "Cached blocks that were given up for others.", lambda stats: stats.num_evictions),
    Number("mlx_agent:kv_tier_hit_tokens", "Prompt tokens read from disk.", _of_tier("num_hit_tokens")),
    Number("mlx_agent:kv_tier_read_bytes", "KV read from disk.", _of_tier("num_read_bytes")),
    Number("mlx_agent:kv_tier_read_seconds", "Until read KV was in the pool.", _of_tier("read_seconds")),
    Number("mlx_agent:kv_tier_written_bytes", "KV written to disk.", _of_tier("num_written_bytes")),
    Number("mlx_agent:memory_reliefs", "Times that the system ran short.", lambda stats: stats.num_memory_reliefs),
)

HISTOGRAMS = (
    Distribution("vllm:time_to_first_token_seconds", "From submission.", lambda s: s.requests.first_token_time),
    Distribution("vllm:inter_token_latency_seconds", _GAP, lambda stats: stats.requests.token_gap),
    Distribution("vllm:time_per_output_token_seconds", _GAP, lambda stats: stats.requests.token_gap),
    Distribution(
        "vllm:request_time_per_output_token_seconds",
        "A request's mean after its first token.",
        lambda stats: stats.requests.time_per_token,
    ),
    Distribution(
        "vllm:e2e_request_latency_seconds", "From submission to the end.", lambda stats: stats.requests.total_time
    ),
    Distribution("vllm:request_queue_time_seconds", "Waiting to run.", lambda stats: stats.requests.queue_time),
    Distribution("vllm:request_inference_time_seconds", "Running.", lambda stats: stats.requests.running_time),
    Distribution("vllm:request_prefill_time_seconds", "To the first token.", lambda stats: stats.requests.prefill_time),
    Distribution("vllm:request_decode_time_seconds", "From it to the end.", lambda stats: stats.requests.decode_time),
    Distribution("vllm:request_prompt_tokens", "Prompt tokens.", lambda stats: stats.requests.prompt_tokens),
    Distribution("vllm:request_generation_tokens", "New tokens.", lambda stats: stats.requests.generated_tokens),
)
