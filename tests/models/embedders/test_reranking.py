"""Cross-encoders beside sentence-transformers' own, and what is none."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_llm import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders import TextBatch, load_reranker
from tests.support.embedders import (
    CROSS_ENCODERS,
    WORDS,
    check_that_weights_are_asked_for,
    write_json,
    write_modules,
    write_tiny_cross_encoder,
    write_tiny_encoder,
)

WARNINGS = "ignore::DeprecationWarning", "ignore::FutureWarning"


def random_pairs(count: int) -> list[tuple[str, str]]:
    generator = random.Random(0)

    def text(longest: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(0, longest)))

    return [(text(20), text(200)) for _ in range(count)] + [("", ""), ("w1 " * 200, "w2 " * 400)]


def scores_of(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    loaded = load_reranker(str(folder), device="cpu")
    tokenized = loaded.tokenizer.tokenize_pairs(pairs)
    scores = []
    for ids, num_first in zip(tokenized.token_ids, tokenized.num_first, strict=True):
        padded = np.pad(ids, (0, 3))[None]  # what stands behind a row is seen by nobody
        batch = TextBatch(mx.array(padded), mx.array([len(ids)]), mx.array([num_first]))
        scores.append(loaded.model(batch).item())
    return np.array(scores)


def reference_scores(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    from sentence_transformers import CrossEncoder

    scores: np.ndarray = CrossEncoder(str(folder), device="cpu").predict(pairs, show_progress_bar=False)
    return scores


@pytest.mark.parametrize("model_type", CROSS_ENCODERS)
@pytest.mark.filterwarnings(*WARNINGS)
def test_scores_are_those_of_sentence_transformers(model_type: str, tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, model_type)
    pairs = random_pairs(5)
    ours = scores_of(tmp_path, pairs)
    assert np.ptp(ours) > 0.01
    np.testing.assert_allclose(ours, reference_scores(tmp_path, pairs), atol=2e-4)


@pytest.mark.filterwarnings(*WARNINGS)
@pytest.mark.parametrize("where", ["sentence_transformers", "sbert_ce_default_activation_function"])
def test_scores_are_logits_where_the_model_s_makers_chose_them(where: str, tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, "bert")
    name = "torch.nn.modules.linear.Identity"
    change_config(tmp_path, **{where: {"activation_fn": name} if where == "sentence_transformers" else name})
    pairs = random_pairs(3)
    np.testing.assert_allclose(scores_of(tmp_path, pairs), reference_scores(tmp_path, pairs), atol=1e-3)
    change_config(tmp_path, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(ModelLoadError, match=r"activation_fn='torch\.nn\.modules\.activation\.Tanh' must be one of"):
        load_reranker(str(tmp_path))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | changes)


def test_what_is_no_cross_encoder_of_one_score_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path / "embedder", "bert")
    with pytest.raises(UnsupportedModelError, match="BertModel is no cross-encoder"):
        load_reranker(str(tmp_path / "embedder"))
    write_tiny_cross_encoder(tmp_path, "bert")
    change_config(tmp_path, id2label={"0": "no", "1": "yes"})
    with pytest.raises(UnsupportedModelError, match="num_labels=2 must be 1"):
        load_reranker(str(tmp_path))
    change_config(tmp_path, id2label={"0": "LABEL_0"}, model_type="llama")
    with pytest.raises(UnsupportedModelError, match="model_type='llama'"):
        load_reranker(str(tmp_path))
    change_config(tmp_path, model_type="bert")
    write_modules(tmp_path, "Dense")
    with pytest.raises(UnsupportedModelError, match=r"Transformer \+ Dense must be Transformer alone"):
        load_reranker(str(tmp_path))


def test_weights_that_are_missing_or_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    write_tiny_cross_encoder(tmp_path, "xlm-roberta")
    check_that_weights_are_asked_for(load_reranker, tmp_path, "classifier.out_proj.bias", "head.out.bias")
