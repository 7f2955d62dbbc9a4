"""MLXAgentReranker orders documents, as LangChain's retrievers and chains use it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.exceptions import ModelInvalidRequestError, ModelNotFoundError
from langchain_core.runnables import RunnableLambda

from langchain_mlx_agent import MLXAgentReranker
from mlx_agent_llm import RequestError, Reranker

DOCUMENTS = [Document(f"w{index} " * (index + 1), metadata={"page": index}, id=str(index)) for index in range(6)]


async def test_documents_come_back_in_their_order_with_their_scores(reranker: Reranker) -> None:
    compressor = MLXAgentReranker(reranker=reranker, top_n=3)
    assert isinstance(compressor, BaseDocumentCompressor)
    expected = reranker.rank("w1", [document.page_content for document in DOCUMENTS], 3)
    for ranked in (
        compressor.compress_documents(DOCUMENTS, "w1"),
        await compressor.acompress_documents(DOCUMENTS, "w1"),
    ):
        assert [document.metadata["page"] for document in ranked] == [one.index for one in expected]
        scores = [document.metadata["relevance_score"] for document in ranked]
        assert scores == pytest.approx([one.score for one in expected], abs=1e-5)
        assert [document.id for document in ranked] == [str(one.index) for one in expected]
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS), "the caller's stay as they were"


async def test_calls_at_the_same_time_give_what_calls_in_turn_give(reranker: Reranker) -> None:
    compressor = MLXAgentReranker(reranker=reranker)
    found = await asyncio.gather(*(compressor.acompress_documents(DOCUMENTS, f"w{index}") for index in range(8)))
    for index, documents in enumerate(found):
        expected = compressor.compress_documents(DOCUMENTS, f"w{index}")
        assert [document.id for document in documents] == [document.id for document in expected]


def test_a_chain_ranks_what_it_retrieved(reranker: Reranker) -> None:
    compressor = MLXAgentReranker(reranker=reranker)
    chain = RunnableLambda(lambda query: (DOCUMENTS, query)) | (lambda pair: compressor.compress_documents(*pair))
    assert len(chain.invoke("w1")) == len(DOCUMENTS)


async def test_no_documents_stay_none(reranker: Reranker) -> None:
    compressor = MLXAgentReranker(reranker=reranker)
    assert compressor.compress_documents([], "w1") == await compressor.acompress_documents([], "w1") == []


def test_errors_are_langchains_too(reranker: Reranker) -> None:
    with pytest.raises(ModelInvalidRequestError, match="query=7") as caught:
        MLXAgentReranker(reranker=reranker).compress_documents(DOCUMENTS, 7)  # type: ignore[arg-type]
    assert isinstance(caught.value, RequestError)
    with pytest.raises(ModelNotFoundError, match="no such model"):
        MLXAgentReranker(model="no such model").compress_documents(DOCUMENTS, "w1")


def test_parameters_that_contradict_each_other_are_refused(reranker: Reranker) -> None:
    for fields in ({}, {"model": "a", "reranker": reranker}):
        with pytest.raises(ValueError, match="either model or reranker must be given"):
            MLXAgentReranker(**fields)
    with pytest.raises(ValueError, match="top_n"):
        MLXAgentReranker(reranker=reranker, top_n=0)
    with pytest.raises(ValueError, match="top_k"):
        MLXAgentReranker(reranker=reranker, top_k=1)  # type: ignore[call-arg]


def test_a_model_that_was_closed_loads_again(reranker_folder: Path) -> None:
    with MLXAgentReranker(model=str(reranker_folder), top_n=1) as compressor:
        before = compressor.compress_documents(DOCUMENTS, "w1")
        compressor.close()
        assert compressor.compress_documents(DOCUMENTS, "w1") == before
