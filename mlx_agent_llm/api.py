"""The public names, in one module that is imported when the first of them is asked for."""

from mlx_agent_llm.chat import ChatDelta, ChatOutput, InvalidToolCall, Tool, ToolCall
from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.constrain import Choice, Grammar, JSONSchema, Regex
from mlx_agent_llm.core.stats import EngineStats
from mlx_agent_llm.embedder import Embedder, RankedDocument, Reranker
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.engine.handle import Handle
from mlx_agent_llm.engine.pinning import PinnedPrompt
from mlx_agent_llm.errors import (
    CapacityError,
    ConstraintError,
    ContextLengthError,
    EngineClosedError,
    ForkedProcessError,
    GenerationError,
    InvalidOutputError,
    KVTierError,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
    ToolChoiceError,
    UnsupportedModelError,
    UnsupportedSchemaError,
)
from mlx_agent_llm.process.memory_ledger import MemoryLedger, ModelMemory, memory_ledger
from mlx_agent_llm.request import (
    Delta,
    FinishReason,
    RequestOutput,
    SamplingDefaults,
    SamplingParams,
    Timings,
    TokenLogprob,
    Usage,
)

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
