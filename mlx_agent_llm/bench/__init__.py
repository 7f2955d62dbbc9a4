"""The workloads of the design, our engine and mlx-lm side by side: same process, same model, same BLAS."""

from mlx_agent_llm.bench.compare import Comparison, compare
from mlx_agent_llm.bench.workload import WORKLOADS, Workload, make_workload

__all__ = ["WORKLOADS", "Comparison", "Workload", "compare", "make_workload"]
