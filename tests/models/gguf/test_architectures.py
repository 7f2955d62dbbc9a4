from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.gguf.architectures import ARCHITECTURES
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.model import build_model
from tests.support.gguf_models import FAMILIES, random_model, write_model

TOKENS = [5, 80, 3, 200, 41, 97, 13, 44, 8, 19, 120, 77]


def logits(model: object) -> np.ndarray:
    """Of a chunk longer than the windows, and of four steps after it."""
    cache = make_prompt_cache(model)
    first = model(mx.array([TOKENS]), cache=cache)  # type: ignore[operator]
    steps = [model(mx.array([[token]]), cache=cache) for token in TOKENS[:4]]  # type: ignore[operator]
    return np.array(mx.concatenate([first, *steps], axis=1).astype(mx.float32))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_written_as_gguf_has_the_logits_of_mlx_lms_model(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config)
    path = write_model(tmp_path / "model.gguf", family, model)
    expected = logits(model)
    loaded = load_model(str(path), device="cpu")
    np.testing.assert_allclose(logits(loaded.model), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert type(loaded.model) is type(model)
    assert loaded.max_model_len == (64 if name == "gemma2" else 128)


def test_every_architecture_has_such_a_model() -> None:
    assert {name.split(" ")[0] for name in FAMILIES} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ["llama", "gpt-oss", "qwen35"])
def test_what_is_not_quantized_is_the_same_packed_or_not(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config)
    gguf = read_gguf(write_model(tmp_path / "model.gguf", family, model))
    built = build_model(gguf, packed=True)
    assert sum(built.load_weights(gguf, built.own_dtype)) == sum(tensor.num_bytes for tensor in gguf.tensors.values())
    np.testing.assert_array_equal(logits(built.model), logits(load_model(str(gguf.path), device="cpu").model))
