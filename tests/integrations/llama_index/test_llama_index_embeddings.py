"""MLXAgentEmbedding under LlamaIndex's own base class, and in an index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index.embeddings.mlx_agent import MLXAgentEmbedding
from mlx_agent_llm import Embedder, RequestError
from tests.support.embedders import demo_embedder_folder

TEXTS = ["The ferry leaves at nine.", "The bakery sells bread.", "Owls hunt at night."]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder.load(str(demo_embedder_folder())) as embedder:
        yield embedder


@pytest.fixture
def embedding(embedder: Embedder) -> MLXAgentEmbedding:
    return MLXAgentEmbedding(embedder=embedder)


def test_it_is_an_embedding_model_of_llama_index() -> None:
    assert BaseEmbedding.__name__ in [base.__name__ for base in MLXAgentEmbedding.__mro__]
    assert MLXAgentEmbedding.class_name() == "MLXAgentEmbedding" != MockEmbedding.class_name()


def test_it_goes_through_llama_indexs_serialized_form() -> None:
    again = MLXAgentEmbedding.from_dict(MLXAgentEmbedding("a/model", dimensions=8).to_dict())
    assert (again.model_name, again.dimensions) == ("a/model", 8)


def test_every_way_to_embed_gives_the_same_vectors(embedding: MLXAgentEmbedding, embedder: Embedder) -> None:
    async def asynchronous() -> list[list[float]]:
        one = await embedding.aget_text_embedding(TEXTS[0])
        return [
            one,
            *(await embedding.aget_text_embedding_batch(TEXTS)),
            await embedding.aget_query_embedding(TEXTS[0]),
        ]

    expected = embedder.embed([TEXTS[0], *TEXTS, TEXTS[0]]).tolist()
    synchronous = [
        embedding.get_text_embedding(TEXTS[0]),
        *embedding.get_text_embedding_batch(TEXTS),
        embedding.get_query_embedding(TEXTS[0]),
    ]
    np.testing.assert_allclose(synchronous, expected, atol=1e-5)
    np.testing.assert_allclose(asyncio.run(asynchronous()), expected, atol=1e-5)


def test_an_index_finds_the_node_that_answers(embedding: MLXAgentEmbedding) -> None:
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("When does the boat go?")
    assert found.get_content() == TEXTS[0]


def test_an_embedder_has_its_own_model_and_dimensions(embedder: Embedder) -> None:
    for fields in ({"model_name": "other"}, {"dimensions": 8}):
        with pytest.raises(ValueError, match="neither can be combined with embedder"):
            MLXAgentEmbedding(embedder=embedder, **fields)


def test_what_is_no_text_is_refused(embedding: MLXAgentEmbedding) -> None:
    with pytest.raises(RequestError, match=r"texts\[1\]=7 must be a text"):
        embedding._get_text_embeddings(["a", 7])  # type: ignore[list-item]


def test_a_model_that_was_closed_loads_again() -> None:
    embedding = MLXAgentEmbedding(str(demo_embedder_folder()), dimensions=16)
    before = embedding.get_query_embedding("a")
    assert len(before) == 16
    embedding.close()
    assert embedding.get_query_embedding("a") == before
    embedding.close()
