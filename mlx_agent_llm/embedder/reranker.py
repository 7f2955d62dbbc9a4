"""Reranker, the face: a query and documents in, how well each one answers out, from any number of callers at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.embedder.calls import Vectors
from mlx_agent_llm.embedder.served_model import ServedModel, preflight
from mlx_agent_llm.embedder.texts import check_text, check_texts
from mlx_agent_llm.errors import GenerationError, RequestError
from mlx_agent_llm.models.embedders import LoadedReranker, TokenizedTexts, load_reranker
from mlx_agent_llm.process.memory_ledger import open_models


@dataclass(frozen=True)
class RankedDocument:
    """The place of a document in the list that was ranked, and its score."""

    index: int
    score: float


class Reranker(ServedModel):
    """A model in this process that reads queries and documents together, and whose one thread batches all callers.

    kv_cache_tokens: of Qwen3-Reranker, the size of its pool of keys and values, which holds the longest pair at least.
    """

    _KIND = "Reranker"

    def __init__(self, loaded: LoadedReranker, *, kv_cache_tokens: int | None = None) -> None:
        self._tokenizer = loaded.tokenizer
        super().__init__(loaded, loaded.tokenizer.max_tokens, kv_cache_tokens)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        instruction: str | None = None,
        kv_cache_tokens: int | None = None,
        device: Device = "auto",
        dtype: DType = "auto",
    ) -> Self:
        """Load a directory with a sequence-classification model of one label or with Qwen3-Reranker, or a hub id.

        instruction: what Qwen3-Reranker judges by, None for its makers' own. A name that leads nowhere is a
        ModelLoadError, a model of another kind an UnsupportedModelError, one that does not fit beside what this process
        takes already a CapacityError before any weight is read.
        """
        check = preflight(model, device, kv_cache_tokens)
        with open_models.loading:
            loaded = load_reranker(model, instruction=instruction, device=device, dtype=dtype, preflight=check)
            return cls(loaded, kv_cache_tokens=kv_cache_tokens)

    def score(self, query: str, documents: Sequence[str]) -> Vectors:
        """How well each document answers the query: (number of documents,) in float32, the higher the better.

        A pair of more than max_tokens tokens loses the end of its longer text, of which the first time is told in a
        UserWarning. What is no text is a RequestError.
        """
        return _finish(self._submit(self.tokenize(query, documents), width=1).future.result())

    async def ascore(self, query: str, documents: Sequence[str]) -> Vectors:
        """Like score; tokens are made on another thread, too, so that the event loop goes on."""
        return await self.ascore_tokens(await asyncio.to_thread(self.tokenize, query, documents))

    def rank(self, query: str, documents: Sequence[str], top_n: int | None = None) -> list[RankedDocument]:
        """The documents by their scores, the best first, of equal ones the earlier first; at most top_n."""
        _check_top_n(top_n)
        return _rank(self.score(query, documents), top_n)

    async def arank(self, query: str, documents: Sequence[str], top_n: int | None = None) -> list[RankedDocument]:
        """Like rank, for an event loop."""
        _check_top_n(top_n)
        return await self.arank_tokens(await asyncio.to_thread(self.tokenize, query, documents), top_n)

    def tokenize(self, query: str, documents: Sequence[str]) -> TokenizedTexts:
        """The tokens that score would read of the query and each document, and which of the pairs it would cut."""
        check_text("query", query)
        check_texts("documents", documents)
        return self._tokenizer.tokenize_pairs([(query, document) for document in documents])

    async def ascore_tokens(self, tokens: TokenizedTexts) -> Vectors:
        """The scores of what tokenize gave."""
        return _finish(await asyncio.wrap_future(self._submit(tokens, width=1).future))

    async def arank_tokens(self, tokens: TokenizedTexts, top_n: int | None = None) -> list[RankedDocument]:
        """The documents of what tokenize gave, ranked as by rank."""
        _check_top_n(top_n)
        return _rank(await self.ascore_tokens(tokens), top_n)


def _finish(scores: Vectors) -> Vectors:
    if not np.isfinite(scores).all():
        raise GenerationError("the model computed scores that are not finite")
    return scores[:, 0]


def _check_top_n(top_n: int | None) -> None:
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise RequestError(f"top_n={top_n!r} must be an integer of at least 1, or None")


def _rank(scores: Vectors, top_n: int | None) -> list[RankedDocument]:
    order = np.argsort(-scores, kind="stable")[:top_n]
    return [RankedDocument(int(index), float(scores[index])) for index in order]
