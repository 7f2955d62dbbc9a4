"""LlamaIndex on mlx_agent_llm: MLXAgentLLM, a function calling LLM that shares one engine in this process."""

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "llama_index.llms.mlx_agent needs llama-index-core: pip install 'mlx-agent-llm[llama-index]'"
    ) from error

from llama_index.llms.mlx_agent.errors import AnswerError, LLMRequestError
from llama_index.llms.mlx_agent.llm import MLXAgentLLM

__all__ = ["AnswerError", "LLMRequestError", "MLXAgentLLM"]
