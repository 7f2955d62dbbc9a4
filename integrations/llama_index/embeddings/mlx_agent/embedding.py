"""MLXAgentEmbedding: LlamaIndex's embedding model over one Embedder."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from mlx_agent_llm import Embedder
from mlx_agent_llm.embedder.on_first_use import OnFirstUse


class MLXAgentEmbedding(BaseEmbedding):
    """An embedding model in this process; queries and texts get the prompts that the model has for them.

    model_name: "demo-embedder", a directory in sentence-transformers' layout or a hub id, loaded on first use.
    embedder: a running Embedder instead; it stays its owner's to close.
    """

    model_name: str = Field(default="demo-embedder", description="What Embedder.load takes.")
    dimensions: int | None = Field(default=None, ge=1, description="Cut vectors to so many values; None keeps all.")
    embed_batch_size: int = Field(default=256, gt=0, le=2048, description="Texts that are handed over at once.")

    _given: Embedder | None = PrivateAttr(default=None)
    _own: OnFirstUse[Embedder] = PrivateAttr(default_factory=OnFirstUse)

    def __init__(self, model_name: str | None = None, embedder: Embedder | None = None, **fields: Any) -> None:
        if embedder is not None:
            if model_name is not None or fields.get("dimensions") is not None:
                raise ValueError("model_name and dimensions are the embedder's: neither can be combined with embedder")
            model_name, fields["dimensions"] = embedder.model_name, embedder.dimensions
        if model_name is not None:
            fields["model_name"] = model_name
        super().__init__(**fields)
        self._given = embedder

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's serialized form."""
        return "MLXAgentEmbedding"

    def close(self) -> None:
        """Close the embedder that was loaded here; the next call loads again. Leaves a given one alone."""
        self._own.close()

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query], "query")[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text], "document")[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts, "document")

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed([query], "query"))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed([text], "document"))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._aembed(texts, "document")

    def _embed(self, texts: list[str], prompt_name: str) -> list[Embedding]:
        vectors: list[Embedding] = self._embedder().embed(texts, prompt_name=prompt_name).tolist()
        return vectors

    async def _aembed(self, texts: list[str], prompt_name: str) -> list[Embedding]:
        embedder = await asyncio.to_thread(self._embedder)  # which may load it
        vectors: list[Embedding] = (await embedder.aembed(texts, prompt_name=prompt_name)).tolist()
        return vectors

    def _embedder(self) -> Embedder:
        if self._given is not None:
            return self._given
        return self._own.open(partial(Embedder.load, self.model_name, dimensions=self.dimensions))
