"""Embeddings, ranking, tokens, and what is said of models."""

import asyncio
import base64
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlx_agent_llm import Embedder, Reranker
from mlx_agent_llm.server.app import make_app
from mlx_agent_llm.server.gate import Gate
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from tests.support.embedders import WORDS, write_tiny_cross_encoder, write_tiny_encoder
from tests.support.servers import ADD_TOOL, ASK, Visitor, ask, chat, client_of, scripted_engine, service_of, serving


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder: Path = tmp_path_factory.mktemp("models")
    write_tiny_encoder(folder / "encoder", "bert")
    write_tiny_cross_encoder(folder / "reranker", "bert")
    service = service_of(engine := scripted_engine(["Hello."]))
    with (
        engine,
        Embedder.load(str(folder / "encoder"), device="cpu") as service.embedder,
        Reranker.load(str(folder / "reranker"), device="cpu") as service.reranker,
    ):
        yield make_app(service)


def embedder_of(app: Gate) -> Embedder:
    embedder: Embedder = app._app.state.service.embedder  # type: ignore[attr-defined]
    return embedder


def reranker_of(app: Gate) -> Reranker:
    reranker: Reranker = app._app.state.service.reranker  # type: ignore[attr-defined]
    return reranker


async def embed(app: Gate, texts: Any, **options: Any) -> Any:
    return await ask(app, "/v1/embeddings", {"model": "default", "input": texts, **options})


async def test_vectors_are_the_embedders_own_in_both_encodings(app: Gate) -> None:
    texts = [WORDS[3], " ".join(WORDS[5:9])]
    numbers = (await embed(app, texts)).json()
    coded = (await embed(app, texts, encoding_format="base64")).json()
    expected = embedder_of(app).embed(texts)
    for entry, code, vector in zip(numbers["data"], coded["data"], expected, strict=True):
        np.testing.assert_allclose(entry["embedding"], vector, rtol=1e-5)
        np.testing.assert_array_equal(
            np.frombuffer(base64.b64decode(code["embedding"]), np.float32), np.float32(entry["embedding"])
        )
    assert numbers["usage"]["prompt_tokens"] == 3 + 6


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.long)])
async def test_in_half_precision_texts_of_all_lengths_in_one_batch_have_finite_vectors(
    tmp_path: Path, dtype: Any
) -> None:
    write_tiny_encoder(tmp_path, "bert")
    texts = [" ".join(WORDS[1:count]) for count in (2, 40, 7)]
    with scripted_engine(["Hello."]) as engine, Embedder.load(str(tmp_path), device="cpu", dtype=dtype) as embedder:
        service = service_of(engine)
        service.embedder = embedder
        app = make_app(service)
        together = [entry["embedding"] for entry in (await embed(app, texts)).json()["data"]]
        alone = [(await embed(app, text)).json()["data"][0]["embedding"] for text in texts]
    np.testing.assert_allclose(together, alone, atol=2e-2)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-3)


async def test_embedding_again_and_again_takes_no_more_memory(app: Gate) -> None:
    texts = [" ".join(WORDS[1:count]) for count in range(2, 40)]
    await embed(app, texts)
    before = mx.get_active_memory()
    for _ in range(5):
        await embed(app, texts)
    assert mx.get_active_memory() <= before


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([1, 2, 3], {}, "check_embedding_ctx_length=False"),
        ([[1, 2], [3]], {}, "check_embedding_ctx_length=False"),
        ([], {}, "at least one text"),
        (["w1"] * 4097, {}, "input holds 4097 items: must be at most 4096"),
        (["w1"], {"dimensions": 7}, "must be the model's"),
        (["w1"], {"prompt_name": "poem"}, "prompt_name"),
        (["w1", " ".join(["w2"] * 400)], {}, "input[1] of"),
        (["w1"], {"model": "scripted"}, "is a chat model"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_and_nothing_is_cut(
    app: Gate, texts: Any, options: dict[str, Any], message: str
) -> None:
    response = await embed(app, texts, **options)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


async def test_an_embedder_does_not_chat(app: Gate) -> None:
    response = await chat(app, model=embedder_of(app).model_name)
    assert response.status_code == 400 and response.json()["error"]["code"] == "wrong_model_kind"


async def rank(app: Gate, documents: Any, **options: Any) -> Any:
    return await ask(app, "/v1/rerank", {"model": "default", "query": "w1", "documents": documents, **options})


async def test_documents_are_ranked(app: Gate) -> None:
    texts = ["w2", "w3 w4 w5", "w6 w7"]
    body = await rank(app, [texts[0], {"text": texts[1]}, texts[2]], top_n=2, return_documents=True)
    expected = reranker_of(app).rank("w1", texts, top_n=2)
    assert [(one["index"], one["document"]["text"]) for one in body.json()["results"]] == [
        (one.index, texts[one.index]) for one in expected
    ]
    np.testing.assert_allclose(
        [one["relevance_score"] for one in body.json()["results"]], [one.score for one in expected], atol=1e-6
    )


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (["w1", " ".join(["w2"] * 400)], {}, "documents[1] must be at most 290 tokens with the query"),
        ([], {}, "at least one text"),
        (["w1"] * 4097, {}, "documents holds 4097 items: must be at most 4096"),
        (["w1"], {"top_n": 0}, "top_n=0"),
        (["w1"], {"model": "scripted"}, "is a chat model"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_and_nothing_is_cut(
    app: Gate, documents: Any, options: dict[str, Any], message: str
) -> None:
    response = await rank(app, documents, **options)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


async def test_without_a_reranker_and_an_embedder_their_routes_say_so() -> None:
    with scripted_engine(["Hello."]) as engine:
        app = make_app(service_of(engine))
        ranked = await ask(app, "/v1/rerank", {"model": "x", "query": "q", "documents": ["a"]})
        embedded = await embed(app, ["a"])
    assert ranked.status_code == embedded.status_code == 404


async def test_tokens_of_a_chat_are_those_that_its_usage_counts(app: Gate) -> None:
    counted = (await ask(app, "/v1/tokenize", {"model": "default", "messages": ASK})).json()["count"]
    assert counted == (await chat(app)).json()["usage"]["prompt_tokens"]


async def test_a_chat_whose_tokens_are_asked_for_has_the_bounds_of_every_chat(app: Gate) -> None:
    body = {"model": "default", "messages": ASK, "tools": [ADD_TOOL] * 129}
    refused = await ask(app, "/v1/tokenize", body)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tools"


async def test_text_goes_to_tokens_and_back(app: Gate) -> None:
    tokens = (await ask(app, "/v1/tokenize", {"model": "default", "prompt": "héllo"})).json()["tokens"]
    back = await ask(app, "/v1/detokenize", {"model": "default", "tokens": tokens})
    assert back.json() == {"prompt": "héllo"}
    wrong = await ask(app, "/v1/detokenize", {"model": "default", "tokens": [99999]})
    assert wrong.status_code == 400 and "tokens[0]=99999" in wrong.json()["error"]["message"]


async def test_models_are_listed_with_what_they_can_do(app: Gate) -> None:
    await chat(app)
    async with client_of(app) as client:
        listed = {entry["id"]: entry["capabilities"] for entry in (await client.get("/v1/models")).json()["data"]}
        shown = (await client.get("/v1/models/default")).json()
        unknown = await client.get("/v1/models/nobody")
    assert "chat" in listed["default"] and "tools" in listed["scripted"]
    assert listed[embedder_of(app).model_name] == ["embeddings"] and listed[reranker_of(app).model_name] == ["rerank"]
    assert shown["root"] == "scripted" and unknown.status_code == 404


async def test_metrics_count_every_request_failed_and_cancelled_ones_too() -> None:
    def reply(prompt: str) -> str:
        if "break" in prompt:
            raise RuntimeError("the model broke")
        return "Hello. " * 300 if "long" in prompt else "Hello."

    with serving(reply) as app:
        await chat(app)
        assert (await chat(app, [{"role": "user", "content": "break"}])).status_code == 500
        visitor = Visitor(app, "/v1/chat/completions", {**LONG_STREAM, "max_tokens": 4000})
        await visitor.took(b'"content":"H')
        visitor.leave()
        await visitor.task
        async with client_of(app) as client, asyncio.timeout(30):
            while (counts := _finished(await client.get("/metrics")))["abort"] == 0:
                await asyncio.sleep(0.01)
    assert counts == {"stop": 1.0, "error": 1.0, "abort": 1.0, "length": 0.0, "tool_calls": 0.0}


async def test_what_was_counted_stays_when_a_model_is_unloaded_and_loaded_again() -> None:
    models = ServedModels({"a": "a", "b": "b"}, lambda _: scripted_engine(["Hello."]), max_loaded=1)
    app = make_app(Service(models, ServerSettings()))
    seen: list[dict[tuple[str, str], float]] = []
    for model in ("a", "b", "a", "b"):
        assert (await chat(app, model=model)).status_code == 200
        async with client_of(app) as client:
            seen.append(_counters((await client.get("/metrics")).text))
    models.close()
    tokens = [counters["vllm:generation_tokens_total", "a"] for counters in seen]
    assert tokens == [7, 7, 14, 14]
    assert all(later[key] >= value for earlier, later in pairwise(seen) for key, value in earlier.items())
    counts = {key: value for key, value in seen[0].items() if "seconds" not in key[0]}
    assert {key: seen[2][key] for key in counts} == {key: 2 * value for key, value in counts.items()}


async def test_metrics_need_their_package_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_agent_llm.metrics", None)
    with serving(["Hello."], keys=["secret"]) as app:
        async with client_of(app) as client:
            assert (await client.get("/metrics")).status_code == 401
            missing = await client.get("/metrics", headers={"x-api-key": "secret"})
    assert missing.status_code == 501 and missing.json()["error"]["code"] == "metrics_not_installed"


LONG_STREAM = {"model": "default", "messages": [{"role": "user", "content": "long"}], "stream": True}


def _counters(text: str) -> dict[tuple[str, str], float]:
    """What only grows, by name with its other labels, and model."""
    families = [family for family in text_string_to_metric_families(text) if family.type in ("counter", "histogram")]
    counters = {}
    for sample in (sample for family in families for sample in family.samples):
        others = {key: value for key, value in sorted(sample.labels.items()) if key not in ("model_name", "engine")}
        name = sample.name + (repr(others) if others else "")
        assert sample.labels["engine"] == {"a": "0", "b": "1"}[sample.labels["model_name"]]
        if not sample.name.endswith("_created"):
            counters[name, sample.labels["model_name"]] = sample.value
    return counters


def _finished(response: httpx.Response) -> dict[str, float]:
    """The requests by how they ended."""
    pattern = r'vllm:request_success_total\{.*?finished_reason="(\w+)".*?\} (\S+)'
    return {reason: float(number) for reason, number in re.findall(pattern, response.text)}
