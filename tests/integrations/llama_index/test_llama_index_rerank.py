"""MLXAgentRerank in the shape of LlamaIndex's own tests of postprocessors, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import QueryBundle
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers.base import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.postprocessor.mlx_agent import MLXAgentRerank
from mlx_agent_llm import RequestError, Reranker

NODES = [
    NodeWithScore(node=TextNode(text=f"w{index} " * (index + 1), metadata={"page": f"w{index}"}), score=0.5)
    for index in range(6)
]


def test_class() -> None:
    names = [base.__name__ for base in MLXAgentRerank.__mro__]
    assert BaseNodePostprocessor.__name__ in names
    assert MLXAgentRerank.class_name() == "MLXAgentRerank"


async def test_nodes_come_back_in_their_order_with_their_scores(reranker: Reranker) -> None:
    rerank = MLXAgentRerank(reranker=reranker, top_n=3)
    texts = [f"page: w{index}\n\n{node.node.get_content()}" for index, node in enumerate(NODES)]
    expected = reranker.rank("w1", texts, 3)
    for ranked in (
        rerank.postprocess_nodes(NODES, query_str="w1"),
        await rerank.apostprocess_nodes(NODES, QueryBundle("w1")),
    ):
        assert [node.node_id for node in ranked] == [NODES[one.index].node_id for one in expected]
        assert [node.score for node in ranked] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert all(node.score == 0.5 for node in NODES), "the caller's stay as they were"


class Found(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return NODES


async def test_a_query_engine_ranks_its_sources(reranker: Reranker) -> None:
    rerank = MLXAgentRerank(reranker=reranker, top_n=2)
    engine = RetrieverQueryEngine.from_args(Found(), llm=MockLLM(), node_postprocessors=[rerank])
    expected = [node.node_id for node in rerank.postprocess_nodes(NODES, query_str="w1")]
    for answer in (engine.query("w1"), await engine.aquery("w1")):
        assert [node.node_id for node in answer.source_nodes] == expected


def test_observers_of_both_kinds_are_told(reranker: Reranker) -> None:
    seen = list[str]()

    class Events(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Events"

        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event.class_name())

    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = MLXAgentRerank(reranker=reranker, callback_manager=CallbackManager([debug]))
    dispatcher = get_dispatcher()
    handler = Events()
    dispatcher.add_event_handler(handler)
    try:
        rerank.postprocess_nodes(NODES, query_str="w1")
    finally:
        dispatcher.event_handlers.remove(handler)
    assert [name for name in seen if "ReRank" in name] == ["ReRankStartEvent", "ReRankEndEvent"]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


def test_what_cannot_be_ranked_is_refused(reranker: Reranker) -> None:
    rerank = MLXAgentRerank(reranker=reranker)
    assert rerank.postprocess_nodes([], query_str="w1") == []
    with pytest.raises(ValueError, match="query_bundle=None"):
        rerank.postprocess_nodes(NODES)
    with pytest.raises(RequestError, match="lone surrogate"):
        rerank.postprocess_nodes(NODES, query_str="\ud800")


def test_parameters_that_contradict_each_other_are_refused(reranker: Reranker) -> None:
    for fields in ({}, {"model": "a", "reranker": reranker}):
        with pytest.raises(ValueError, match="either model or reranker must be given"):
            MLXAgentRerank(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_n"):
        MLXAgentRerank(reranker=reranker, top_n=0)


def test_a_model_that_was_closed_loads_again(reranker_folder: Path) -> None:
    rerank = MLXAgentRerank(str(reranker_folder), top_n=1)
    before = rerank.postprocess_nodes(NODES, query_str="w1")
    rerank.close()
    assert rerank.postprocess_nodes(NODES, query_str="w1") == before
    rerank.close()
