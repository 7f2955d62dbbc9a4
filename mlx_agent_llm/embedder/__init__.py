"""Embeddings of texts: the face, and the thread that batches what many callers ask for."""

from mlx_agent_llm.embedder.embedder import Embedder

__all__ = ["Embedder"]
