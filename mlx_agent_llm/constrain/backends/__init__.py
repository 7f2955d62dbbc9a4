"""The two grammar libraries: which one reads a grammar, in what notation, and where a request stands in it."""

from mlx_agent_llm.constrain.backends.backends import BACKEND_NAMES, BackendName
from mlx_agent_llm.constrain.backends.compiler import CompiledConstraint, GrammarCompiler

__all__ = ["BACKEND_NAMES", "BackendName", "CompiledConstraint", "GrammarCompiler"]
