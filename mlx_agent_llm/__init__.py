"""An engine for many agents in one process: paged attention, continuous batching, shared prefixes, grammars."""

from mlx_agent_llm.process import blas, command_buffers

blas.preload()  # before anything imports mlx: afterwards it is too late
command_buffers.fill()

from mlx_agent_llm.chat import ChatDelta, ChatOutput, InvalidToolCall, Tool, ToolCall  # noqa: E402
from mlx_agent_llm.config import EngineConfig  # noqa: E402
from mlx_agent_llm.constrain import Choice, Grammar, JSONSchema, Regex  # noqa: E402
from mlx_agent_llm.core.stats import EngineStats  # noqa: E402
from mlx_agent_llm.embedder import Embedder  # noqa: E402
from mlx_agent_llm.engine import Engine  # noqa: E402
from mlx_agent_llm.engine.handle import Handle  # noqa: E402
from mlx_agent_llm.errors import (  # noqa: E402
    CapacityError,
    ConstraintError,
    ContextLengthError,
    EngineClosedError,
    ForkedProcessError,
    GenerationError,
    InvalidOutputError,
    MLXAgentError,
    ModelLoadError,
    QueueFullError,
    RequestError,
    RequestTimeout,
    ToolChoiceError,
    UnsupportedModelError,
    UnsupportedSchemaError,
)
from mlx_agent_llm.request import (  # noqa: E402
    Delta,
    FinishReason,
    RequestOutput,
    SamplingParams,
    Timings,
    TokenLogprob,
    Usage,
)

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
    "MLXAgentError",
    "ModelLoadError",
    "QueueFullError",
    "Regex",
    "RequestError",
    "RequestOutput",
    "RequestTimeout",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolChoiceError",
    "UnsupportedModelError",
    "UnsupportedSchemaError",
    "Usage",
]
