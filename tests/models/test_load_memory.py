import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import save_model

from mlx_agent_llm.config import DType
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.source import find_demo
from mlx_agent_llm.testing import tiny_model
from tests.models.test_loading import save_tokenizer
from tests.support.gguf_models import FAMILIES, random_model, write_model


def peak_over_weights(name: str, dtype: DType) -> float:
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    loaded = load_model(name, device="cpu", dtype=dtype)
    weights = sum(array.nbytes for _, array in tree_flatten(loaded.model.parameters()))
    return (mx.get_peak_memory() - before) / weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_less_than_a_fifth_more_than_the_weights(tmp_path: Path, dtype: DType) -> None:
    family = FAMILIES["gpt-oss"]
    path = write_model(tmp_path / "model.gguf", family, random_model(family.config))
    assert peak_over_weights(str(path), dtype) < 1.2


@pytest.mark.parametrize("bits", [None, 4])
def test_loading_a_directory_takes_less_than_a_fifth_more_than_the_weights(tmp_path: Path, bits: int | None) -> None:
    model = tiny_model(hidden_size=64, num_hidden_layers=8)
    model.set_dtype(mx.bfloat16)
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
    config = vars(model.args) | ({"quantization": {"group_size": 32, "bits": bits}} if bits is not None else {})
    save_model(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_tokenizer(tmp_path)
    del model
    assert peak_over_weights(str(tmp_path), "auto") < 1.2


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_loading_the_demo_takes_less_than_a_fifth_more_than_its_weights(dtype: DType) -> None:
    if find_demo() is None:
        pytest.skip("the demo model is not installed")
    assert peak_over_weights("demo", dtype) < 1.2
