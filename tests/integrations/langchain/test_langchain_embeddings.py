"""LangChain's own tests for embeddings, and what they leave out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.exceptions import ModelInvalidRequestError, ModelNotFoundError
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_mlx_agent import MLXAgentEmbeddings
from mlx_agent_llm import Embedder, RequestError
from tests.support.embedders import demo_embedder_folder


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder.load(str(demo_embedder_folder())) as embedder:
        yield embedder


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[MLXAgentEmbeddings]:
        return MLXAgentEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "demo-embedder"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[MLXAgentEmbeddings]:
        return MLXAgentEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(demo_embedder_folder())}

    @pytest.fixture
    def model(self) -> Iterator[MLXAgentEmbeddings]:
        with MLXAgentEmbeddings(**self.embedding_model_params) as embeddings:
            yield embeddings


def test_a_vector_store_finds_the_document_that_answers(embedder: Embedder) -> None:
    store = InMemoryVectorStore(MLXAgentEmbeddings(embedder=embedder))
    texts = ["The ferry leaves at nine.", "The bakery sells bread.", "Owls hunt at night."]
    store.add_documents([Document(text) for text in texts])
    assert store.similarity_search("When does the boat go?", k=1)[0].page_content == texts[0]


async def test_calls_at_the_same_time_give_what_calls_in_turn_give(embedder: Embedder) -> None:
    embeddings = MLXAgentEmbeddings(embedder=embedder)
    found = await asyncio.gather(*(embeddings.aembed_query(f"text {index}") for index in range(8)))
    np.testing.assert_allclose(found, [embeddings.embed_query(f"text {index}") for index in range(8)], atol=1e-5)


async def test_no_documents_have_no_vectors(embedder: Embedder) -> None:
    embeddings = MLXAgentEmbeddings(embedder=embedder)
    assert embeddings.embed_documents([]) == await embeddings.aembed_documents([]) == []


def test_errors_are_langchains_too(embedder: Embedder) -> None:
    with pytest.raises(ModelInvalidRequestError, match=r"texts\[0\]=7") as caught:
        MLXAgentEmbeddings(embedder=embedder).embed_documents([7])  # type: ignore[list-item]
    assert isinstance(caught.value, RequestError)
    with pytest.raises(ModelNotFoundError, match="no such model"):
        MLXAgentEmbeddings(model="no such model").embed_query("a")


def test_an_embedder_has_its_own_model_and_dimensions(embedder: Embedder) -> None:
    for field in ({"model": "other"}, {"dimensions": 8}):
        with pytest.raises(ValueError, match="neither can be combined with embedder"):
            MLXAgentEmbeddings(embedder=embedder, **field)
    with pytest.raises(ValueError, match="dimension_count"):
        MLXAgentEmbeddings(dimension_count=8)  # type: ignore[call-arg]


def test_a_model_that_was_closed_loads_again() -> None:
    embeddings = MLXAgentEmbeddings(model=str(demo_embedder_folder()), dimensions=16)
    before = embeddings.embed_query("a")
    assert len(before) == 16
    embeddings.close()
    assert embeddings.embed_query("a") == before
    embeddings.close()


def test_a_bar_shows_how_many_documents_are_done(embedder: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"text {index}" for index in range(300)]
    vectors = MLXAgentEmbeddings(embedder=embedder, show_progress=True).embed_documents(texts)
    assert "300/300" in capsys.readouterr().err
    np.testing.assert_allclose(vectors[299], MLXAgentEmbeddings(embedder=embedder).embed_query(texts[299]), atol=1e-5)
    assert capsys.readouterr().err == ""
