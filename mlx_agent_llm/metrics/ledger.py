"""LedgerCollector: what the models of this process take, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlx_agent_llm.process.memory_ledger import MemoryLedger, memory_ledger

_LABELS = ("model_name", "kind", "part")


class LedgerCollector(Collector):
    """What memory_ledger() says, for a Prometheus registry: of each open model, and of the process as a whole."""

    def collect(self) -> Iterator[Metric]:
        """The families, read now."""
        ledger = memory_ledger()
        yield _models(ledger)
        arrays = "Bytes of MLX's arrays that are alive, of all models of the process."
        yield GaugeMetricFamily("mlx_agent:memory_arrays_bytes", arrays, value=ledger.arrays)
        freed = "Bytes of freed arrays that MLX keeps to use again."
        yield GaugeMetricFamily("mlx_agent:memory_freed_bytes", freed, value=ledger.freed_buffers)
        total = "Bytes while all models compute full steps: what a model that is loaded later has to fit beside."
        yield GaugeMetricFamily("mlx_agent:memory_total_bytes", total, value=ledger.total)


def _models(ledger: MemoryLedger) -> Metric:
    """Models of one kind and name are added up: a metric has one sample for its labels."""
    taken = Counter[tuple[str, str, str]]()
    for model in ledger.models:
        for part, num_bytes in (("weights", model.weights), ("pool", model.pool), ("step", model.step)):
            taken[model.name, model.kind.lower(), part] += num_bytes
    help_text = "Bytes of an open model's weights, its pool, and a full step's arrays (estimated)."
    family = GaugeMetricFamily("mlx_agent:model_memory_bytes", help_text, labels=_LABELS)
    for labels, num_bytes in taken.items():
        family.add_metric(labels, num_bytes)
    return family
