"""Reranker, the face: a query and documents in, how well each one answers out, from any number of callers at a time."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from mlx_agent_llm.config import Device, DType
from mlx_agent_llm.embedder.calls import Call, Vectors
from mlx_agent_llm.embedder.encoder_forward import EncoderForward
from mlx_agent_llm.embedder.texts import TruncationWarning, check_text, check_texts
from mlx_agent_llm.embedder.worker import BatchWorker
from mlx_agent_llm.errors import GenerationError, RequestError
from mlx_agent_llm.models.embedders import LoadedReranker, load_reranker


@dataclass(frozen=True)
class RankedDocument:
    """The place of a document in the list that was ranked, and its score."""

    index: int
    score: float


class Reranker:
    """A cross-encoder in this process, whose one thread batches the pairs of all callers."""

    def __init__(self, loaded: LoadedReranker) -> None:
        self._loaded = loaded
        self._warning = TruncationWarning()
        self._worker = BatchWorker(lambda: EncoderForward(loaded.model, loaded.device))
        self._finalizer = weakref.finalize(self, self._worker.close)

    @classmethod
    def load(cls, model: str, *, device: Device = "auto", dtype: DType = "auto") -> Self:
        """Load a directory with a sequence-classification model of one label, or a hub id.

        A name that leads nowhere is a ModelLoadError, a model of another kind an UnsupportedModelError.
        """
        return cls(load_reranker(model, device=device, dtype=dtype))

    @property
    def model_name(self) -> str:
        """What the model was loaded by."""
        return self._loaded.name

    @property
    def max_tokens(self) -> int:
        """The length that longer pairs are cut to, with the tokens that the model puts around them."""
        return self._loaded.tokenizer.max_tokens

    @property
    def num_batches(self) -> int:
        """The forwards so far."""
        return self._worker.num_batches

    def score(self, query: str, documents: Sequence[str]) -> Vectors:
        """How well each document answers the query: (number of documents,) in float32, the higher the better.

        A pair of more than max_tokens tokens loses the end of its longer text, of which the first time is told in a
        UserWarning. What is no text is a RequestError.
        """
        return _finish(self._start(query, documents).future.result())

    async def ascore(self, query: str, documents: Sequence[str]) -> Vectors:
        """Like score; tokens are made on another thread, too, so that the event loop goes on."""
        call = await asyncio.to_thread(self._start, query, documents)
        return _finish(await asyncio.wrap_future(call.future))

    def rank(self, query: str, documents: Sequence[str], top_n: int | None = None) -> list[RankedDocument]:
        """The documents by their scores, the best first, of equal ones the earlier first; at most top_n."""
        _check_top_n(top_n)
        return _rank(self.score(query, documents), top_n)

    async def arank(self, query: str, documents: Sequence[str], top_n: int | None = None) -> list[RankedDocument]:
        """Like rank, for an event loop."""
        _check_top_n(top_n)
        return _rank(await self.ascore(query, documents), top_n)

    def close(self) -> None:
        """End open calls with EngineClosedError and stop the thread, as when nobody has the reranker any more."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, query: str, documents: Sequence[str]) -> Call:
        check_text("query", query)
        check_texts("documents", documents)
        tokenized = self._loaded.tokenizer.tokenize_pairs([(query, document) for document in documents])
        self._warning.tell(tokenized.num_truncated, len(documents), self.max_tokens)
        call = Call(tokenized.token_ids, tokenized.num_first, dimensions=1)
        self._worker.add(call)
        return call


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
