"""Reranker: order, callers that share batches, and inputs that are refused."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_agent_llm import EngineClosedError, GenerationError, RequestError, Reranker
from mlx_agent_llm.embedder.encoder_forward import EncoderForward
from tests.support.embedders import write_tiny_cross_encoder

DOCUMENTS = [f"w{index} w{index * 7 % 60} " * (index + 1) for index in range(12)]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    folder = tmp_path_factory.mktemp("reranker")
    write_tiny_cross_encoder(folder, "bert")
    with Reranker.load(str(folder), device="cpu") as reranker:
        yield reranker


def test_documents_are_ranked_by_their_scores(reranker: Reranker) -> None:
    scores = reranker.score("w1 w2", DOCUMENTS)
    assert scores.shape == (12,) and scores.dtype == np.float32
    ranked = reranker.rank("w1 w2", DOCUMENTS)
    assert [document.index for document in ranked] == np.argsort(-scores, kind="stable").tolist()
    np.testing.assert_allclose([document.score for document in ranked], np.sort(scores)[::-1], atol=1e-5)
    assert reranker.rank("w1 w2", DOCUMENTS, top_n=3) == ranked[:3]


def test_equal_documents_stay_in_their_order(reranker: Reranker) -> None:
    assert [document.index for document in reranker.rank("w1", ["w2 w3"] * 5)] == [0, 1, 2, 3, 4]


def test_a_pair_is_scored_alike_alone_and_among_others(reranker: Reranker) -> None:
    alone = [reranker.score("w1", [document])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(reranker.score("w1", DOCUMENTS), alone, atol=1e-5)


async def test_tasks_rank_at_the_same_time(reranker: Reranker) -> None:
    found = await asyncio.gather(*(reranker.arank(query, DOCUMENTS) for query in ("w1", "w2")))
    assert [[each.index for each in one] for one in found] == [
        [each.index for each in reranker.rank(query, DOCUMENTS)] for query in ("w1", "w2")
    ]


def test_callers_at_the_same_time_share_forwards(reranker: Reranker) -> None:
    before = reranker.num_batches
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda index: reranker.score(f"w{index}", ["w1"]), range(32)))
    assert reranker.num_batches - before < 32


def test_a_pair_that_is_cut_is_told_of_once(tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, "bert")
    with Reranker.load(str(tmp_path)) as reranker:
        with pytest.warns(UserWarning, match="1 of 2 texts are cut to the 290 tokens"):
            reranker.score("w1", ["w2 " * 400, "w3"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reranker.score("w1", ["w2 " * 400])


@pytest.mark.parametrize(
    ("query", "documents", "says"),
    [
        ("w1", [], r"documents=\[\] must hold at least one text"),
        ("w1", "w2", "documents must be a list of texts, not str"),
        ("w1", ["w2", None], r"documents\[1\]=None must be a text"),
        ("w1", [[1, 2]], r"documents\[0\]=\[1, 2\] must be a text"),
        (None, ["w2"], "query=None must be a text"),
        ("\ud800", ["w2"], "query holds a lone surrogate at 0"),
    ],
)
def test_what_is_no_text_is_refused(query: Any, documents: Any, says: str, reranker: Reranker) -> None:
    with pytest.raises(RequestError, match=says):
        reranker.rank(query, documents)


@pytest.mark.parametrize("top_n", [0, -1, True, 1.5])
def test_a_number_of_documents_that_is_none_is_refused(top_n: Any, reranker: Reranker) -> None:
    with pytest.raises(RequestError, match=f"top_n={top_n}"):
        reranker.rank("w1", ["w2"], top_n=top_n)


def test_scores_that_are_not_finite_fail_their_caller(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = EncoderForward.begin
    monkeypatch.setattr(EncoderForward, "begin", lambda self, rows: lambda: forward(self, rows)() * np.nan)
    with pytest.raises(GenerationError, match="scores that are not finite"):
        reranker.score("w1", ["w2"])


def test_a_closed_reranker_says_so(tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, "bert")
    reranker = Reranker.load(str(tmp_path))
    reranker.close()
    with pytest.raises(EngineClosedError, match="the model is closed"):
        reranker.rank("w1", ["w2"])
