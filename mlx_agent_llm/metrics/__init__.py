"""An engine's counts for Prometheus, under the names that dashboards for vLLM read. Needs the `metrics` extra."""

try:
    import prometheus_client  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("metrics need prometheus-client: pip install 'mlx-agent-llm[metrics]'") from error

from mlx_agent_llm.metrics.collector import Counted, EngineCollector
from mlx_agent_llm.metrics.exposition import CONTENT_TYPE, exposition, exposition_of_counts, serve_metrics
from mlx_agent_llm.metrics.ledger import LedgerCollector

__all__ = [
    "CONTENT_TYPE",
    "Counted",
    "EngineCollector",
    "LedgerCollector",
    "exposition",
    "exposition_of_counts",
    "serve_metrics",
]
