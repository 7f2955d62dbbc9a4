"""EngineCollector: engines' stats as metrics, read when they are asked for and not kept twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mlx_agent_llm.core.histogram import HistogramCounts
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.metrics.families import COUNTERS, GAUGES, HISTOGRAMS
from mlx_agent_llm.request import FinishReason

_LABELS = ("model_name", "engine")
_FINISHED: dict[FinishReason, str] = {  # as vLLM calls them
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "cancelled": "abort",
    "error": "error",
}


class Counted(NamedTuple):
    """What a model has counted, None where there was no engine of it; is_open: whether gauges show the state of one."""

    model_name: str
    stats: EngineStats | None
    is_open: bool = True


class StatsCollector(Collector):
    """What several models have counted, for a Prometheus registry; read gives it, and is called at each scrape.

    Every metric has the labels model_name and engine, which is the model's place among them.
    """

    def __init__(self, read: Callable[[], Sequence[Counted]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """One family a metric, with a sample for each model."""
        counted = [((one.model_name, str(index)), one) for index, one in enumerate(self._read())]
        stats = {labels: one.stats for labels, one in counted if one.stats is not None}
        states = {labels: one.stats for labels, one in counted if one.stats is not None and one.is_open}
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=_LABELS)
            yield _filled(family, {labels: gauge.read(one) for labels, one in states.items()})
        for counter in COUNTERS:
            total = CounterMetricFamily(counter.name, counter.help, labels=_LABELS)
            yield _filled(total, {labels: counter.read(one) for labels, one in stats.items()})
        yield _requests(stats)
        yield _phases(states)
        for histogram in HISTOGRAMS:
            distribution = HistogramMetricFamily(histogram.name, histogram.help, labels=_LABELS)
            for labels, one in stats.items():
                counts = histogram.read(one)
                distribution.add_metric(labels, _buckets(counts), counts.total)
            yield distribution


class EngineCollector(StatsCollector):
    """What one or several engines count, for a Prometheus registry: `REGISTRY.register(EngineCollector(engine))`.

    Every metric has the labels model_name and engine, which is the engine's place among them.
    """

    def __init__(self, *engines: Engine) -> None:
        super().__init__(lambda: [Counted(engine.model_name, engine.stats()) for engine in engines])


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: dict[tuple[str, str], float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _requests(stats: dict[tuple[str, str], EngineStats]) -> Metric:
    help_text = "Requests that ended, by the reason; those that were cancelled (abort) or failed (error) too."
    family = CounterMetricFamily("vllm:request_success", help_text, labels=(*_LABELS, "finished_reason"))
    for labels, one in stats.items():
        for reason, count in one.requests.num_finished.items():
            family.add_metric((*labels, _FINISHED[reason]), count)
    return family


def _phases(stats: dict[tuple[str, str], EngineStats]) -> Metric:
    help_text = "Mean seconds of each phase of a step, over the last 1,000."
    family = GaugeMetricFamily("mlx_agent:step_phase_seconds_mean", help_text, labels=(*_LABELS, "phase"))
    for labels, one in stats.items():
        for phase, seconds in one.mean_phase_times.items():
            family.add_metric((*labels, phase), seconds)
    return family


def _buckets(counts: HistogramCounts) -> list[tuple[str, float]]:
    """Prometheus counts each bucket with all below it."""
    buckets: list[tuple[str, float]] = []
    num_below = 0
    for bound, count in zip((*map(str, counts.bounds), "+Inf"), counts.counts, strict=True):
        num_below += count
        buckets.append((bound, num_below))
    return buckets
