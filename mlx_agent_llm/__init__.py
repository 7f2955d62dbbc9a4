"""An engine for many agents in one process: paged attention, continuous batching, shared prefixes, grammars."""

import importlib
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.process import blas, command_buffers, fork, installation

if TYPE_CHECKING:
    from mlx_agent_llm.api import *  # noqa: F403

blas.preload()  # before anything imports mlx: afterwards it is too late
command_buffers.fill()

__version__ = "0.1.0"

__all__ = [
    "CapacityError",
    "ChatDelta",
    "ChatOutput",
    "Choice",
    "ConstraintError",
    "ContextLengthError",
    "Delta",
    "Embedder",
    "Engine",
    "EngineClosedError",
    "EngineConfig",
    "EngineStats",
    "FinishReason",
    "ForkedProcessError",
    "GenerationError",
    "Grammar",
    "Handle",
    "InvalidOutputError",
    "InvalidToolCall",
    "JSONSchema",
    "KVTierError",
    "MLXAgentError",
    "MemoryLedger",
    "ModelLoadError",
    "ModelMemory",
    "PinnedPrompt",
    "QueueFullError",
    "RankedDocument",
    "Regex",
    "RequestError",
    "RequestOutput",
    "RequestTimeout",
    "Reranker",
    "SamplingDefaults",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolChoiceError",
    "UnsupportedModelError",
    "UnsupportedSchemaError",
    "Usage",
    "memory_ledger",
]


def __getattr__(name: str) -> Any:
    """A public name, for which the engine's modules are imported; they take seconds that `mlx-agent --help` has not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if (problem := installation.problem()) is not None:  # `mlx-agent doctor` works without it
        raise ImportError(problem)
    fork.check_mlx_survived()  # else the imports hang
    api = importlib.import_module(f"{__name__}.api")
    globals().update({public: getattr(api, public) for public in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
