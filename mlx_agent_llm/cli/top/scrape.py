"""Snapshots of engines by what Prometheus would read of them."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from typing import NoReturn

from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.view.snapshot import Snapshot

try:
    from prometheus_client.parser import text_string_to_metric_families
except ModuleNotFoundError as error:
    raise ImportError("a URL needs Prometheus' client: pip install 'mlx-agent-llm[metrics]'") from error

_SECONDS_TO_ANSWER = 10.0
_FIELDS = {
    "num_running": "vllm:num_requests_running",
    "num_waiting": "vllm:num_requests_waiting",
    "num_blocks": "mlx_agent:kv_blocks",
    "num_shared_blocks": "mlx_agent:kv_blocks_shared",
    "num_cached_blocks": "mlx_agent:kv_blocks_cached",
    "prefix_query_tokens": "vllm:prefix_cache_queries_total",
    "prefix_hit_tokens": "vllm:prefix_cache_hits_total",
    "num_prompt_tokens_computed": "vllm:prompt_tokens_total",
    "num_generated_tokens": "vllm:generation_tokens_total",
    "num_preemptions": "vllm:num_preemptions_total",
}
_FREE, _STEP, _ROWS = "mlx_agent:kv_blocks_free", "mlx_agent:step_seconds_mean", "mlx_agent:batch_size_mean"
_PHASE = "mlx_agent:step_phase_seconds_mean"


def scrape(url: str) -> list[Snapshot]:
    """The engines whose metrics stand at the URL; an OSError where nothing answers."""
    with urllib.request.urlopen(url, timeout=_SECONDS_TO_ANSWER) as answer:
        return read_exposition(answer.read().decode(), url)


def read_exposition(text: str, url: str) -> list[Snapshot]:
    """The engines of a text in Prometheus' format; an MLXAgentError if there are none of ours."""
    values: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    phases: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                engine = sample.labels.get("model_name", ""), sample.labels.get("engine", "")
                if sample.name == _PHASE:
                    phases[engine][sample.labels["phase"]] = sample.value
                else:
                    values[engine][sample.name] = sample.value
        return [_snapshot(*engine, values[engine], phases[engine]) for engine in sorted(phases)] or _fail(url)
    except (ValueError, KeyError):
        _fail(url)


def _fail(url: str) -> NoReturn:
    raise MLXAgentError(f"{url} shows no metrics of an engine: a server's stand at /metrics")


def _snapshot(model: str, engine: str, values: Mapping[str, float], phases: Mapping[str, float]) -> Snapshot:
    counts = {field: int(values[name]) for field, name in _FIELDS.items()}
    used = counts["num_blocks"] - counts["num_cached_blocks"] - int(values[_FREE])
    return Snapshot(
        engine=engine,
        model=model,
        moment=time.monotonic(),
        num_used_blocks=used,
        mean_batch_size=values[_ROWS],
        mean_step_time=values[_STEP],
        mean_phase_times=phases,
        **counts,
    )
