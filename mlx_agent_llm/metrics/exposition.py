"""The text that Prometheus reads, and the smallest server of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest, start_http_server

from mlx_agent_llm.engine import Engine
from mlx_agent_llm.metrics.collector import Counted, EngineCollector, StatsCollector
from mlx_agent_llm.metrics.ledger import LedgerCollector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The Content-Type header of what exposition returns."""


def exposition(*engines: Engine) -> bytes:
    """All metrics of these engines and the process's memory, as Prometheus' text; any thread may ask, no step waits."""
    return generate_latest(_registry(EngineCollector(*engines)))


def exposition_of_counts(counted: Sequence[Counted]) -> bytes:
    """What models have counted that may have no engine now, and the process's memory, in Prometheus' text format."""
    return generate_latest(_registry(StatsCollector(lambda: counted)))


def serve_metrics(engine: Engine, port: int = 9400, host: str = "127.0.0.1") -> Callable[[], None]:
    """Serve an engine's metrics at http://host:port/metrics from a thread of their own; returns what stops it.

    Raises OSError where the port is taken.
    """
    server, thread = start_http_server(port, host, registry=_registry(EngineCollector(engine)))

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _registry(collector: StatsCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    registry.register(LedgerCollector())
    return registry
