"""LangChain on mlx_agent_llm: chat and completion models on one engine in this process, embeddings and a reranker."""

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("langchain_mlx_agent needs langchain-core: pip install 'mlx-agent-llm[langchain]'") from error

from langchain_mlx_agent.by_name import init_chat_model
from langchain_mlx_agent.chat_model import ChatMLXAgent
from langchain_mlx_agent.completion import MLXAgentLLM
from langchain_mlx_agent.embeddings import MLXAgentEmbeddings
from langchain_mlx_agent.reranker import MLXAgentReranker
from mlx_agent_llm.engine.registry import EngineRegistry

__all__ = ["ChatMLXAgent", "EngineRegistry", "MLXAgentEmbeddings", "MLXAgentLLM", "MLXAgentReranker", "init_chat_model"]
