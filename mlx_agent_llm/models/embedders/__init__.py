"""Embedding models: encoders in sentence-transformers' layout, from a name to vectors of batches of token ids."""

from mlx_agent_llm.models.embedders.loading import LoadedEmbedder, load_embedder

__all__ = ["LoadedEmbedder", "load_embedder"]
