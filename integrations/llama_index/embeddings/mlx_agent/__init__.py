"""LlamaIndex on mlx_agent_llm: MLXAgentEmbedding, an embedding model in this process."""

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "llama_index.embeddings.mlx_agent needs llama-index-core: pip install 'mlx-agent-llm[llama-index]'"
    ) from error

from llama_index.embeddings.mlx_agent.embedding import MLXAgentEmbedding

__all__ = ["MLXAgentEmbedding"]
