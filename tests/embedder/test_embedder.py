"""Embedder: parity on real weights, callers that share batches, and inputs that are refused."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_agent_llm import Embedder, EngineClosedError, GenerationError, RequestError
from mlx_agent_llm.embedder.calls import PendingCalls
from mlx_agent_llm.embedder.encoder_forward import EncoderForward
from tests.support.embedders import demo_embedder_folder, write_json, write_tiny_encoder

SCRIPTS = (
    "The quick brown fox jumps over the lazy dog and runs on.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "Zażółć gęślą jaźń — “quotes”, 3.14 % & <tags> 🎈👩‍👩‍👧 ﬁ",
    "敏捷的棕色狐狸跳过了懒狗 한국어 문장도 있습니다",
)


def texts_of_all_lengths(count: int, longest: int) -> list[str]:
    generator = random.Random(0)
    words = [word for script in SCRIPTS for word in script.split()]
    texts = [" ".join(generator.choices(words, k=generator.randint(1, longest))) for _ in range(count - 2)]
    return ["", "  two\n lines ", *texts]


def reference(texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(demo_embedder_folder()), device="cpu")
        vectors: np.ndarray = model.encode(texts, show_progress_bar=False)
    return vectors


def assert_parity(embedder: Embedder, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that are cut
        ours = embedder.embed(texts)
    cosines = (ours * reference(texts)).sum(axis=1)
    assert cosines.min() > 0.9999


def test_vectors_are_those_of_sentence_transformers(demo_embedder: Embedder) -> None:
    assert_parity(demo_embedder, texts_of_all_lengths(30, 40))


@pytest.mark.long
def test_500_vectors_of_all_lengths_are_those_of_sentence_transformers(demo_embedder: Embedder) -> None:
    assert_parity(demo_embedder, [*texts_of_all_lengths(499, 200), "word " * 10_000])


@pytest.mark.long
def test_documents_are_ranked_as_by_sentence_transformers(demo_embedder: Embedder) -> None:
    texts = texts_of_all_lengths(210, 30)
    ours, theirs = demo_embedder.embed(texts), reference(texts)
    for query in range(10):
        mine, scores = ours[10:] @ ours[query], theirs[10:] @ theirs[query]
        order = np.argsort(-mine)
        assert (np.diff(scores[order]) < 1e-5).all()  # the same order, but for ties in float32


def test_vectors_are_of_length_one_in_float32(demo_embedder: Embedder) -> None:
    vectors = demo_embedder.embed(["a", "b c d"])
    assert vectors.dtype == np.float32 and vectors.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_fewer_dimensions_are_the_first_ones_scaled_to_length_one(demo_embedder: Embedder) -> None:
    with Embedder(demo_embedder._loaded, dimensions=64) as short:
        cut = demo_embedder.embed(["a text"])[:, :64]
        np.testing.assert_allclose(short.embed(["a text"]), cut / np.linalg.norm(cut), atol=1e-6)
        assert short.dimensions == 64


def hold_forwards(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let every forward wait; set when the first one runs, and to be set for them to go on."""
    is_running, may_go_on = threading.Event(), threading.Event()
    forward = EncoderForward.begin

    def held_forward(self: EncoderForward, rows: Any) -> Any:
        is_running.set()
        assert may_go_on.wait(60)
        return forward(self, rows)

    monkeypatch.setattr(EncoderForward, "begin", held_forward)
    return is_running, may_go_on


def test_callers_at_the_same_time_share_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_encoder(tmp_path, "bert")
    first_is_running, may_go_on = hold_forwards(monkeypatch)
    with Embedder.load(str(tmp_path)) as embedder, ThreadPoolExecutor(51) as pool:
        futures = [pool.submit(embedder.embed, ["w1 w2"])]
        assert first_is_running.wait(60)
        calls = embedder._worker._calls
        futures += [pool.submit(embedder.embed, [f"w{index} w3"]) for index in range(50)]
        while calls.qsize() < 50:
            threading.Event().wait(0.001)
        may_go_on.set()
        vectors = [future.result(60) for future in futures]
        assert embedder.num_batches == 2
        alone = [embedder.embed([text]) for text in ("w1 w2", "w7 w3")]
    np.testing.assert_allclose([vectors[0], vectors[8]], alone, atol=1e-5)


async def test_tasks_embed_at_the_same_time(demo_embedder: Embedder) -> None:
    vectors = await asyncio.gather(*(demo_embedder.aembed([text]) for text in ("one", "two")))
    np.testing.assert_allclose(np.concatenate(vectors), demo_embedder.embed(["one", "two"]), atol=1e-5)


def test_a_text_that_is_cut_is_told_of_once() -> None:
    with Embedder.load(str(demo_embedder_folder())) as embedder:
        with pytest.warns(UserWarning, match="1 of 1 texts are cut to the 256 tokens"):
            embedder.embed(["word " * 300])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            embedder.embed(["word " * 300])


def test_tokens_are_counted_also_of_a_text_that_would_be_cut(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    with Embedder.load(str(tmp_path), device="cpu") as embedder:
        short, long = embedder.count_tokens(["w1 w2 w3", "w1 " * 400])
        assert short == 5 and long > 400 > embedder.max_tokens


def test_prompts_are_written_before_the_texts(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    prompts = {"query": "w5 w6 ", "passage": "w7 ", "other": "w8 "}
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "other"})
    with Embedder.load(str(tmp_path)) as embedder:
        assert embedder.prompts["document"] == "w7 "
        vectors = [embedder.embed(["w1"], prompt_name=name) for name in ("query", "document", "passage", None)]
        write_json(tmp_path / "config_sentence_transformers.json", {})
        with Embedder.load(str(tmp_path)) as plain:
            expected = [plain.embed([text]) for text in ("w5 w6 w1", "w7 w1", "w7 w1", "w8 w1")]
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        with pytest.raises(RequestError, match="prompt_name='none' must be one of 'query'"):
            embedder.embed(["w1"], prompt_name="none")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], r"texts=\[\] must hold at least one text"),
        (None, "not NoneType"),
        ("a text", "must be a list of texts, not str"),
        ([101, 102], r"texts\[0\]=101 must be a text, not int"),
        (["a", None], r"texts\[1\]=None must be a text"),
        (["a", [1, 2]], r"texts\[1\]=\[1, 2\] must be a text"),
        (["\ud800"], r"texts\[0\] holds a lone surrogate at 0"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, says: str, demo_embedder: Embedder) -> None:
    with pytest.raises(RequestError, match=says):
        demo_embedder.embed(texts)


@pytest.mark.parametrize("dimensions", [0, 385, True, 1.5])
def test_dimensions_that_the_model_lacks_are_refused(dimensions: Any, demo_embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=f"dimensions={dimensions}"):
        Embedder(demo_embedder._loaded, dimensions=dimensions)


def test_a_fault_fails_its_callers_and_the_next_ones_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_encoder(tmp_path, "bert")
    forward: Callable[..., Any] = EncoderForward.begin

    def broken(self: EncoderForward, rows: Any) -> Any:
        raise MemoryError("no room")

    with Embedder.load(str(tmp_path)) as embedder:
        monkeypatch.setattr(EncoderForward, "begin", broken)
        with pytest.raises(GenerationError, match="MemoryError: no room"):
            embedder.embed(["w1"])
        monkeypatch.setattr(EncoderForward, "begin", lambda self, rows: lambda: forward(self, rows)() * np.nan)
        with pytest.raises(GenerationError, match="not finite"):
            embedder.embed(["w1"])
        monkeypatch.setattr(EncoderForward, "begin", forward)
        assert embedder.embed(["w1"]).shape == (1, 32)


@pytest.mark.parametrize("says", ["no room", "not finite"])
def test_one_bad_text_fails_alone_in_a_batch_of_callers(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_encoder(tmp_path, "bert")
    forward: Callable[..., Any] = EncoderForward.begin
    is_running, may_go_on = threading.Event(), threading.Event()

    def spoiled_by_w7(self: EncoderForward, rows: Any) -> Any:
        is_running.set()
        assert may_go_on.wait(60)
        are_bad = [bad in row.token_ids for row in rows]
        if says == "no room" and any(are_bad):
            raise MemoryError("no room")
        return lambda: np.where(np.array(are_bad)[:, None], np.nan, forward(self, rows)())

    with Embedder.load(str(tmp_path)) as embedder, ThreadPoolExecutor(9) as pool:
        bad = embedder._loaded.tokenizer.tokenize(["w7"]).token_ids[0][1]
        monkeypatch.setattr(EncoderForward, "begin", spoiled_by_w7)
        first = pool.submit(embedder.embed, ["w0"])
        assert is_running.wait(60)
        futures = [pool.submit(embedder.embed, [f"w{index}"]) for index in range(1, 9)]
        while embedder._worker._calls.qsize() < 8:
            threading.Event().wait(0.001)
        may_go_on.set()
        with pytest.raises(GenerationError, match=says):
            futures.pop(6).result(60)
        assert all(future.result(60).shape == (1, 32) for future in [first, *futures])


def test_a_bug_of_the_worker_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_encoder(tmp_path, "bert")

    def broken(pending: PendingCalls) -> Any:
        raise KeyError("a bug")

    with Embedder.load(str(tmp_path)) as embedder:
        monkeypatch.setattr(PendingCalls, "take_batch", broken)
        for _ in range(2):  # one that the thread has taken, and one that finds no thread
            with pytest.raises(GenerationError, match="the model stopped: KeyError: 'a bug'"):
                embedder.embed(["w1"])


def test_a_closed_embedder_says_so(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    embedder = Embedder.load(str(tmp_path))
    embedder.close()
    embedder.close()
    with pytest.raises(EngineClosedError, match="the model is closed"):
        embedder.embed(["w1"])


def test_calls_that_wait_when_it_is_closed_end_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_encoder(tmp_path, "bert")
    is_running, may_go_on = hold_forwards(monkeypatch)
    embedder = Embedder.load(str(tmp_path))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(embedder.embed, ["w1"])
        assert is_running.wait(60)
        second = pool.submit(embedder.embed, ["w2"])
        while not embedder._worker._calls.qsize():
            threading.Event().wait(0.001)
        closing = pool.submit(embedder.close)
        while not embedder._worker._closed:
            threading.Event().wait(0.001)
        may_go_on.set()
        closing.result(60)
        assert first.result(60).shape == (1, 32)
        with pytest.raises(EngineClosedError):
            second.result(60)


def test_an_embedder_that_nobody_has_any_more_leaves_no_thread(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    embedder = Embedder.load(str(tmp_path))
    embedder.embed(["w1"])
    thread = embedder._worker._thread
    del embedder
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
