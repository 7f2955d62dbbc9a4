"""LlamaIndex on mlx_agent_llm: MLXAgentRerank, a reranking model in this process."""

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "llama_index.postprocessor.mlx_agent needs llama-index-core: pip install 'mlx-agent-llm[llama-index]'"
    ) from error

from llama_index.postprocessor.mlx_agent.rerank import MLXAgentRerank

__all__ = ["MLXAgentRerank"]
