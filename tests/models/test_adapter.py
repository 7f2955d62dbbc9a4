import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model as load_with_mlx_lm

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.adapter import add_adapter, fuse_adapter
from tests.models.test_loading import TOKENS, saved
from tests.support.gguf_models import FAMILIES, random_model, write_model

SETTINGS = {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.up_proj"]}


def save_adapter(model: nn.Module, folder: Path, *, kind: str = "lora", seed: int = 5) -> Path:
    """A random adapter for the model, which is turned into one with it."""
    folder.mkdir(exist_ok=True)
    linear_to_lora_layers(model, 2, SETTINGS, use_dora=kind == "dora")
    mx.random.seed(seed)
    names = [name for name, _ in tree_flatten(model.parameters()) if name.endswith(("lora_a", "lora_b"))]
    shapes = dict(tree_flatten(model.parameters()))
    weights = {name: mx.random.normal(shapes[name].shape) * 0.1 for name in names}
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": SETTINGS}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model.load_weights(list(weights.items()), strict=False)
    model.eval()
    return folder


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_model_with_an_adapter_has_the_logits_of_mlx_lms(tmp_path: Path, kind: str) -> None:
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model")
    plain, _ = load_with_mlx_lm(tmp_path / "model")
    before = np.array(plain(TOKENS))
    adapter = save_adapter(plain, tmp_path / "adapter", kind=kind)
    loaded = load_model(str(tmp_path / "model"), device="cpu", adapter_path=str(adapter))
    expected = np.array(plain(TOKENS))
    np.testing.assert_allclose(np.array(loaded.model(TOKENS)), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - before).max() > 0.01
    assert not any("lora_a" in module for module in loaded.model.modules())


def test_an_adapter_of_the_original_model_fits_its_gguf(tmp_path: Path) -> None:
    family = FAMILIES["llama"]
    model = random_model(family.config)
    path = write_model(tmp_path / "model.gguf", family, model)
    adapter = save_adapter(model, tmp_path / "adapter")
    loaded = load_model(str(path), device="cpu", adapter_path=str(adapter))
    expected = np.array(model(TOKENS))
    np.testing.assert_allclose(np.array(loaded.model(TOKENS)), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_quantized_weights_keep_the_adapter_beside_them(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model", bits=4)
    model, _ = load_with_mlx_lm(tmp_path / "model")
    adapter = save_adapter(model, tmp_path / "adapter")
    expected = np.array(model(TOKENS))
    again, _ = load_with_mlx_lm(tmp_path / "model")
    add_adapter(again, adapter)
    fuse_adapter(again)
    assert any("lora_a" in module for module in again.modules())
    np.testing.assert_array_equal(np.array(again(TOKENS)), expected)


def test_the_fingerprint_is_that_of_the_adapter_and_part_of_the_key_of_cached_blocks(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model")
    adapters = [
        save_adapter(load_with_mlx_lm(tmp_path / "model")[0], tmp_path / f"adapter{seed}", seed=seed) for seed in (5, 6)
    ]
    prints, keys = [], []
    for adapter in (None, adapters[0], adapters[0], adapters[1]):
        config = EngineConfig(kv_cache_tokens=512, adapter_path=None if adapter is None else str(adapter))
        with Engine.load(str(tmp_path / "model"), config) as engine:
            submission = engine._admission.single([1, 2, 3], None)
            prints.append(submission.adapter)
            keys.append(submission.request(lambda delta: None, 0, 0.0).cache_key)
    assert prints[0] is None and keys[0] == b""
    assert prints[1] == prints[2] != prints[3] and keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapters.safetensors", None, "adapters.safetensors is missing"),
        ("adapter_config.json", None, "adapter_config.json is missing"),
        ("adapter_config.json", b"{}", "does not fit"),
        ("adapters.safetensors", b"\0" * 4, "cannot hold its header"),
    ],
)
def test_an_adapter_that_is_not_whole_is_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model")
    adapter = save_adapter(load_with_mlx_lm(tmp_path / "model")[0], tmp_path / "adapter")
    (adapter / file).unlink()
    if content is not None:
        (adapter / file).write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load_model(str(tmp_path / "model"), device="cpu", adapter_path=str(adapter))


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model")
    adapter = save_adapter(load_with_mlx_lm(tmp_path / "model")[0], tmp_path / "adapter")
    other = write_model(tmp_path / "other.gguf", FAMILIES["qwen2"], random_model(FAMILIES["qwen2"].config))
    weights = mx.load(str(adapter / "adapters.safetensors"))
    mx.save_safetensors(str(adapter / "adapters.safetensors"), {f"x.{name}": one for name, one in weights.items()})
    with pytest.raises(ModelLoadError, match="does not fit"):
        load_model(str(other), device="cpu", adapter_path=str(adapter))
