"""An engine's counts as Prometheus metrics, read back by prometheus_client's own parser."""

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mlx_agent_llm import Engine, SamplingParams, memory_ledger
from mlx_agent_llm.metrics import CONTENT_TYPE, EngineCollector, exposition, serve_metrics
from mlx_agent_llm.testing import ScriptedModel
from tests.support.engines import MakeEngine


def samples_of(text: bytes) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]


def value(engine: Engine, name: str, **labels: str) -> float:
    found = [s for s in samples_of(exposition(engine)) if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0].value


def test_what_ends_cancelled_or_failed_is_counted_beside_what_succeeds(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "x" * 500), kv_cache_tokens=4096)
    engine.generate(["one", "two"], SamplingParams(max_tokens=8))
    handle = engine.submit("three", SamplingParams(max_tokens=400))
    next(iter(handle))
    handle.cancel()
    assert handle.result().finish_reason == "cancelled"
    with pytest.raises(TimeoutError):
        engine.submit("four", SamplingParams(max_tokens=400, timeout=0)).result()
    ended = {
        sample.labels["finished_reason"]: sample.value
        for sample in samples_of(exposition(engine))
        if sample.name == "vllm:request_success_total"
    }
    assert ended == {"stop": 0, "length": 2, "tool_calls": 0, "abort": 1, "error": 1}


def test_the_metrics_are_the_engines_own_counts(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.generate(["a prompt of some length, longer than a block"] * 2, SamplingParams(max_tokens=5, ignore_eos=True))
    stats = engine.stats()
    assert value(engine, "vllm:num_requests_running") == 0
    assert value(engine, "vllm:generation_tokens_total") == stats.num_generated_tokens == 10
    assert value(engine, "vllm:prompt_tokens_total") == stats.num_prompt_tokens_computed
    assert value(engine, "vllm:gpu_prefix_cache_hits_total") == value(engine, "vllm:prefix_cache_hits_total") > 0
    assert value(engine, "vllm:kv_cache_usage_perc") == 0
    assert value(engine, "vllm:request_prompt_tokens_sum") == stats.prefix_query_tokens
    assert value(engine, "mlx_agent:step_phase_seconds_mean", phase="wait") > 0


@pytest.mark.parametrize("name", ["time_to_first_token_seconds", "e2e_request_latency_seconds"])
def test_buckets_of_a_histogram_count_all_below_them_and_end_with_every_request(
    name: str, make_engine: MakeEngine
) -> None:
    engine = make_engine()
    engine.generate(["a", "b", "c"], SamplingParams(max_tokens=3, ignore_eos=True))
    buckets = [sample.value for sample in samples_of(exposition(engine)) if sample.name == f"vllm:{name}_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == value(engine, f"vllm:{name}_count") == 3


def test_every_stream_counts_the_gap_to_its_next_token(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.generate(["a", "b", "c"], SamplingParams(max_tokens=9, ignore_eos=True))
    assert value(engine, "vllm:inter_token_latency_seconds_count") == 3 * 8


def test_several_engines_are_told_apart(make_engine: MakeEngine) -> None:
    first, second = make_engine(), make_engine()
    first.generate(["a"], SamplingParams(max_tokens=2, ignore_eos=True))
    registry = CollectorRegistry()
    registry.register(EngineCollector(first, second))
    labels = {"model_name": first.model_name}
    assert registry.get_sample_value("vllm:generation_tokens_total", labels | {"engine": "0"}) == 2
    assert registry.get_sample_value("vllm:generation_tokens_total", labels | {"engine": "1"}) == 0


def test_what_all_models_of_the_process_take_is_told_by_their_parts(make_engine: MakeEngine) -> None:
    first, second = make_engine(), make_engine()
    assert first.model_name == second.model_name
    needs = [engine.stats().memory for engine in (first, second)]
    labels = {"kind": "engine", "model_name": first.model_name}
    own = [model for model in memory_ledger().models if (model.kind, model.name) == ("Engine", first.model_name)]
    assert [(model.weights, model.pool, model.step) for model in own[-2:]] == needs
    for part in ("weights", "pool", "step"):
        assert value(first, "mlx_agent:model_memory_bytes", **labels, part=part) == sum(
            getattr(model, part) for model in own
        )
    assert value(first, "mlx_agent:memory_arrays_bytes") > 0
    assert value(first, "mlx_agent:memory_total_bytes") >= sum(need.step for need in needs)


def test_the_small_server_answers_until_it_is_stopped(make_engine: MakeEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stop = serve_metrics(make_engine(), port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith(CONTENT_TYPE.split(";")[0])
            assert b"vllm:num_requests_running" in answer.read()
    finally:
        stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
