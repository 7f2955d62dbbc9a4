"""MLXAgentReranker: LangChain's document compressor over one Reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_mlx_agent.errors import langchain_errors
from mlx_agent_llm import RankedDocument, Reranker
from mlx_agent_llm.closing import Closing
from mlx_agent_llm.embedder.on_first_use import OnFirstUse


class MLXAgentReranker(Closing, BaseDocumentCompressor):
    """Orders retrieved documents by a reranking model in this process.

    Setup:
        `pip install "mlx-agent-llm[langchain]"`

    Key init args:
        model: a directory with a reranking model or a hub id; loaded on first use.
        top_n: how many documents are kept; None keeps all.
        reranker: a running Reranker instead of a model; it stays its owner's to close.

    Instantiate:
        ```python
        reranker = MLXAgentReranker(model="cross-encoder/ms-marco-MiniLM-L6-v2", top_n=3)
        ```

    Rerank:
        ```python
        reranker.compress_documents(retriever.invoke(question), question)
        ```

    A document that is handed back is a copy; its metadata have the score as "relevance_score".
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str | None = None
    """What Reranker.load takes."""
    top_n: int | None = Field(default=None, ge=1)
    """How many documents are kept, the best first."""
    reranker: Reranker | None = Field(default=None, exclude=True, repr=False)
    """A running reranker."""

    _own: OnFirstUse[Reranker] = PrivateAttr(default_factory=OnFirstUse)

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        if (self.model is None) == (self.reranker is None):
            raise ValueError("either model or reranker must be given")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The documents that answer the query best, the best first; of no documents none."""
        if not documents:
            return []
        with langchain_errors():
            return _ranked(documents, self._open().rank(query, _texts(documents), self.top_n))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Like compress_documents; calls at the same time share batches."""
        if not documents:
            return []
        with langchain_errors():
            reranker = await asyncio.to_thread(self._open)  # which may load it
            return _ranked(documents, await reranker.arank(query, _texts(documents), self.top_n))

    def close(self) -> None:
        """Close the reranker that was loaded here; the next call loads again. Leaves `reranker` alone."""
        self._own.close()

    def _open(self) -> Reranker:
        if self.reranker is not None:
            return self.reranker
        assert self.model is not None
        return self._own.open(partial(Reranker.load, self.model))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _ranked(documents: Sequence[Document], ranked: Sequence[RankedDocument]) -> list[Document]:
    return [
        documents[one.index].model_copy(
            update={"metadata": {**documents[one.index].metadata, "relevance_score": one.score}}
        )
        for one in ranked
    ]
