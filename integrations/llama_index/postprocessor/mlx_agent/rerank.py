"""MLXAgentRerank: LlamaIndex's node postprocessor over one Reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from mlx_agent_llm import RankedDocument, Reranker
from mlx_agent_llm.embedder.on_first_use import OnFirstUse

_dispatcher = get_dispatcher(__name__)


class MLXAgentRerank(BaseNodePostprocessor):
    """Orders retrieved nodes by a reranking model in this process, whose scores they have afterwards.

    model: a directory with a reranking model or a hub id, loaded on first use.
    reranker: a running Reranker instead; it stays its owner's to close.
    """

    model: str = Field(description="What Reranker.load takes.")
    top_n: int | None = Field(default=None, ge=1, description="How many nodes are kept; None keeps all.")

    _given: Reranker | None = PrivateAttr(default=None)
    _own: OnFirstUse[Reranker] = PrivateAttr(default_factory=OnFirstUse)

    def __init__(self, model: str | None = None, reranker: Reranker | None = None, **fields: Any) -> None:
        if (model is None) == (reranker is None):
            raise ValueError("either model or reranker must be given")
        fields["model"] = model if reranker is None else reranker.model_name
        super().__init__(**fields)
        self._given = reranker

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's serialized form."""
        return "MLXAgentRerank"

    def close(self) -> None:
        """Close the reranker that was loaded here; the next call loads again. Leaves a given one alone."""
        self._own.close()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._events(nodes, query) as ranked:
            ranked += _ranked(nodes, self._reranker().rank(query, _texts(nodes), self.top_n))
        return ranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._events(nodes, query) as ranked:
            reranker = await asyncio.to_thread(self._reranker)  # which may load it
            ranked += _ranked(nodes, await reranker.arank(query, _texts(nodes), self.top_n))
        return ranked

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Tell LlamaIndex's observers of both kinds; the body fills the list."""
        ranked = list[NodeWithScore]()
        top_n = self.top_n or len(nodes)
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield ranked
            event.on_end(payload={EventPayload.NODES: ranked})
        _dispatcher.event(ReRankEndEvent(nodes=ranked))

    def _reranker(self) -> Reranker:
        return self._own.open(partial(Reranker.load, self.model)) if self._given is None else self._given


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise ValueError("query_bundle=None: nodes can only be ranked for a query")
    return query_bundle.query_str


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _ranked(nodes: Sequence[NodeWithScore], ranked: Sequence[RankedDocument]) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[one.index].node, score=one.score) for one in ranked]
