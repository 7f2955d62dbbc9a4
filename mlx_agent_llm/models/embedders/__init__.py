"""Embedding models and cross-encoders: from a name to vectors or scores of batches of token ids."""

from mlx_agent_llm.models.embedders.decoders import Decoder
from mlx_agent_llm.models.embedders.loading import LoadedEmbedder, load_embedder
from mlx_agent_llm.models.embedders.reranking import LoadedReranker, load_reranker
from mlx_agent_llm.models.embedders.text_batch import TextBatch
from mlx_agent_llm.models.embedders.text_tokenizer import TokenizedTexts
from mlx_agent_llm.models.embedders.unread import Preflight, UnreadTextModel

__all__ = [
    "Decoder",
    "LoadedEmbedder",
    "LoadedReranker",
    "Preflight",
    "TextBatch",
    "TokenizedTexts",
    "UnreadTextModel",
    "load_embedder",
    "load_reranker",
]
