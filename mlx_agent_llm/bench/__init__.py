"""The workloads of docs/bench.md: our engine beside mlx-lm, same process, same weights, same BLAS; and ours alone."""

from collections.abc import Mapping

from mlx_agent_llm.bench.decode import DECODE
from mlx_agent_llm.bench.divergence import DIVERGENCE
from mlx_agent_llm.bench.embed import EMBED
from mlx_agent_llm.bench.extract import EXTRACT
from mlx_agent_llm.bench.host import HOST
from mlx_agent_llm.bench.langchain import LANGCHAIN
from mlx_agent_llm.bench.llama_index import LLAMAINDEX
from mlx_agent_llm.bench.mask import MASK
from mlx_agent_llm.bench.mixed import MIXED
from mlx_agent_llm.bench.restart import RESTART
from mlx_agent_llm.bench.result import Bars, Chart, Headline, Result, Spread
from mlx_agent_llm.bench.serve import SERVE
from mlx_agent_llm.bench.speculate import SPECULATE
from mlx_agent_llm.bench.together import AGENTS, BATCH, SINGLE
from mlx_agent_llm.bench.turns import TURNS
from mlx_agent_llm.bench.workload import Options, Workload

__all__ = ["WORKLOADS", "Bars", "Chart", "Headline", "Options", "Result", "Spread", "Workload"]

_ALL = (
    SINGLE,
    BATCH,
    AGENTS,
    TURNS,
    MIXED,
    MASK,
    EXTRACT,
    DIVERGENCE,
    DECODE,
    HOST,
    LANGCHAIN,
    LLAMAINDEX,
    EMBED,
    SERVE,
    SPECULATE,
    RESTART,
)

WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}
