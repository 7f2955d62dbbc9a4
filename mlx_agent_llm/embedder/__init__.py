"""Embeddings and relevance of texts: the faces, and the thread that batches what many callers ask for."""

from mlx_agent_llm.embedder.embedder import Embedder
from mlx_agent_llm.embedder.reranker import RankedDocument, Reranker

__all__ = ["Embedder", "RankedDocument", "Reranker"]
