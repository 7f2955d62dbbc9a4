"""Causal models as embedding models and rerankers: beside transformers' own, and what they compute only once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from mlx_agent_llm import CapacityError, Embedder, GenerationError, ModelLoadError, Reranker, UnsupportedModelError
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.embedder.calls import Call, Row
from mlx_agent_llm.embedder.decoder_forward import DecoderForward
from mlx_agent_llm.models.embedders import Decoder, load_embedder, load_reranker
from mlx_agent_llm.models.embedders.judge import Judge
from tests.support.embedders import (
    DECODERS,
    WORDS,
    write_json,
    write_modules,
    write_tiny_cross_encoder,
    write_tiny_decoder,
    write_tiny_encoder,
    write_tiny_judge,
)

INSTRUCTION = " ".join(WORDS[:50])


def random_texts(count: int, longest: int = 250) -> list[str]:
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(0, longest))) for _ in range(count)]
    return ["", *texts, *(f"{INSTRUCTION} {text[:40]}" for text in texts)]


def reference_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """Hidden states of last tokens, each text alone, scaled to length 1."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True).input_ids
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        vectors.append(hidden / np.linalg.norm(hidden))
    return np.array(vectors)


@pytest.mark.parametrize("model_type", DECODERS)
def test_vectors_of_causal_models_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, model_type)
    texts = random_texts(6)
    with Embedder.load(str(tmp_path), device="cpu") as embedder:
        np.testing.assert_allclose(embedder.embed(texts), reference_vectors(tmp_path, texts), atol=1e-5)


def rows_of(token_ids: list[list[int]]) -> list[Row]:
    call = Call(token_ids, [len(ids) for ids in token_ids], dimensions=1)
    return [Row(call, index) for index in range(len(token_ids))]


def test_what_texts_have_in_common_is_computed_once(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "qwen3")
    loaded = load_embedder(str(tmp_path), device="cpu")
    assert isinstance(loaded.model, Decoder)
    forward = DecoderForward(loaded.model, mx.Device(mx.cpu), kv_cache_tokens=1024)
    tokenized = loaded.tokenizer.tokenize([f"{INSTRUCTION} {word}" for word in WORDS[:10]])
    assert {len(ids) for ids in tokenized.token_ids} == {53}
    forward.begin(rows_of(tokenized.token_ids))
    assert forward.kv_manager.stats.hit_tokens == 9 * 48  # all but the first text have three blocks from it
    forward.begin(rows_of(tokenized.token_ids[:1]))  # another call finds them, too
    assert forward.kv_manager.stats.hit_tokens == 10 * 48
    forward.kv_manager.check_integrity(is_idle=True)
    forward.close()


def test_more_texts_than_the_pool_holds_take_turns(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "llama")
    texts = random_texts(8, longest=60)
    longest = 80
    with Embedder.load(str(tmp_path), device="cpu", kv_cache_tokens=longest) as embedder:
        np.testing.assert_allclose(embedder.embed(texts), reference_vectors(tmp_path, texts), atol=1e-5)
        with pytest.raises(CapacityError, match="a text of 102 tokens is longer than kv_cache_tokens=80"):
            embedder.embed(["w1 " * 100])


def test_a_fault_leaves_a_forward_that_serves_the_next_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_decoder(tmp_path, "qwen3")
    forward = ModelRunner.forward

    def broken(runner: ModelRunner, *arguments: Any) -> Any:
        monkeypatch.setattr(ModelRunner, "forward", forward)
        raise MemoryError("no room")

    with Embedder.load(str(tmp_path), device="cpu") as embedder:
        expected = embedder.embed([INSTRUCTION])
        monkeypatch.setattr(ModelRunner, "forward", broken)
        with pytest.raises(GenerationError, match="MemoryError: no room"):
            embedder.embed(["w1", "w2 " * 40])
        np.testing.assert_allclose(embedder.embed([INSTRUCTION]), expected, atol=1e-6)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize(
    "changes",
    [{"is_causal": False}, {"use_bidirectional_attention": True}, {"auto_map": {"AutoModel": "modeling_qwen.Model"}}],
)
def test_a_model_that_sees_both_ways_is_refused_by_name(changes: dict[str, Any], tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "qwen2")
    change_config(tmp_path, **changes)
    with pytest.raises(UnsupportedModelError, match=next(iter(changes))):
        load_embedder(str(tmp_path))


def test_a_causal_model_is_pooled_by_its_last_token_alone(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "qwen2")
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    with pytest.raises(UnsupportedModelError, match="pooling mean of a causal model"):
        load_embedder(str(tmp_path))


def test_weights_of_a_causal_model_that_are_missing_or_not_finite_are_refused(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "qwen3")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, "norm.weight": np.full_like(weights["norm.weight"], np.nan)}, file)
    with pytest.raises(ModelLoadError, match=r"'model\.norm\.weight' holds values that are not finite"):
        load_embedder(str(tmp_path))
    del weights["norm.weight"]
    save_file(weights, file)
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight"):
        load_embedder(str(tmp_path))


def test_an_encoder_has_no_pool(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    with pytest.raises(ValueError, match="kv_cache_tokens=64 is for causal models"):
        Embedder.load(str(tmp_path), kv_cache_tokens=64)


# ---- Qwen3-Reranker


def test_a_document_s_score_is_the_probability_of_yes_beside_no(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-reranker"
    write_tiny_judge(folder)
    documents = ["The ferry leaves at nine.", "", "Owls hunt at night. " * 5, "敏捷的棕色狐狸"]
    loaded = load_reranker(str(folder), device="cpu")
    token_ids = loaded.tokenizer.tokenize_pairs([("When?", document) for document in documents]).token_ids
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for ids, document in zip(token_ids, documents, strict=True):
        assert f"<Query>: When?\n<Document>: {document}<|im_end|>" in tokenizer.decode(ids)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        words = logits[tokenizer.convert_tokens_to_ids(["no", "yes"])]
        expected.append(torch.softmax(words, dim=0)[1].item())
    with Reranker.load(str(folder), device="cpu") as reranker:
        np.testing.assert_allclose(reranker.score("When?", documents), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


def test_an_instruction_takes_the_place_of_the_makers_own(tmp_path: Path) -> None:
    write_tiny_judge(tmp_path)
    with pytest.raises(UnsupportedModelError, match="a chat model, or a reranker that has another name"):
        load_reranker(str(tmp_path))
    loaded = load_reranker(str(tmp_path), instruction="Judge kindly.", device="cpu")
    (ids,) = loaded.tokenizer.tokenize_pairs([("a", "b")]).token_ids
    text = AutoTokenizer.from_pretrained(tmp_path).decode(ids)
    assert text.endswith(
        "<Instruct>: Judge kindly.\n<Query>: a\n<Document>: b<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_documents_of_one_query_share_what_stands_before_them(tmp_path: Path) -> None:
    write_tiny_judge(tmp_path)
    loaded = load_reranker(str(tmp_path), instruction="Judge.", device="cpu")
    assert isinstance(loaded.model, Decoder)
    token_ids = loaded.tokenizer.tokenize_pairs([("When?", f"{index}") for index in range(5)]).token_ids
    num_common = next(place for place, ids in enumerate(zip(*token_ids, strict=True)) if len(set(ids)) > 1)
    forward = DecoderForward(loaded.model, mx.Device(mx.cpu), kv_cache_tokens=1024)
    forward.begin(rows_of(token_ids))
    assert forward.kv_manager.stats.hit_tokens == 4 * (num_common // 16 * 16) > 4 * 190
    forward.close()


def test_a_document_that_is_too_long_loses_its_end_and_the_question_stays(tmp_path: Path) -> None:
    write_tiny_judge(tmp_path)
    loaded = load_reranker(str(tmp_path), instruction="Judge.", device="cpu")
    judge = loaded.tokenizer
    assert isinstance(judge, Judge) and judge.max_tokens == 2000
    tokenized = judge.tokenize_pairs([("a", "b" * 3000), ("a", "b")])
    assert (len(tokenized.token_ids[0]), tokenized.truncated) == (2000, [0])
    assert tokenized.token_ids[0][-20:] == tokenized.token_ids[1][-20:]


def test_a_cross_encoder_takes_no_instruction(tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, "bert")
    with pytest.raises(ValueError, match=r"instruction='Judge\.' is for Qwen3-Reranker"):
        Reranker.load(str(tmp_path), instruction="Judge.")
    write_modules(tmp_path, "Pooling")
    change_config(tmp_path, model_type="qwen2")
    with pytest.raises(UnsupportedModelError, match="model_type='qwen2'"):
        Reranker.load(str(tmp_path))
