"""Files as people have them: the mixture of types that is called Q4_K_M."""

from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.gguf.file import read_gguf
from mlx_agent_llm.models.gguf.model import build_model
from mlx_agent_llm.models.gguf.weights import Place, read_array
from mlx_agent_llm.models.source import find_demo
from tests.support.gguf_models import COMMON, FAMILIES, UNTIED, Family, file_tensors, random_model, write_model
from tests.support.gguf_quantizers import quantize

TOKENS = mx.array([[5, 80, 3, 200, 41, 97, 13]])
WIDE = COMMON | UNTIED | {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 2}


def kind_of(name: str, width: int) -> str | None:
    """As llama.cpp chooses: six bits for what matters most; where a row is no multiple of 256, an older type."""
    if "norm" in name:
        return None
    is_wide = width % 256 == 0
    if name.startswith(("output", "token_embd")):
        return "Q6_K" if is_wide else "Q8_0"
    if "ffn_down" in name or "attn_v" in name:
        return "Q6_K" if is_wide else "Q5_0"
    return "Q4_K" if is_wide else "Q5_0"


def quantized(family: Family, model: nn.Module) -> dict[str, tuple[str, Any]]:
    kinds = {name: (kind_of(name, values.shape[-1]), values) for name, values in file_tensors(family, model)}
    return {name: (kind, quantize(kind, values)) for name, (kind, values) in kinds.items() if kind is not None}


def rounded(family: Family, model: nn.Module, blocks: dict[str, tuple[str, Any]]) -> nn.Module:
    """The model with the values that the blocks stand for, by the reference of the format's own package."""
    table = dict(zip((name for name, _ in file_tensors(family, model)), tree_flatten(model.parameters()), strict=True))
    arrays = []
    for name, (kind, raw) in blocks.items():
        path, array = table[name]
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(array.shape)
        arrays.append((path, mx.array(_in_model_order(name, values, family.config))))
    model.update(tree_unflatten(arrays))
    return model


def _in_model_order(name: str, values: Any, config: dict[str, Any]) -> Any:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if heads is None:
        return values
    return values.reshape(heads, config["head_dim"] // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file, and the logits of the model that it stands for."""
    family = Family("LLAMA", WIDE | {"model_type": "llama"}, change=FAMILIES["llama"].change)
    model = random_model(family.config)
    blocks = quantized(family, model)
    assert {kind for kind, _ in blocks.values()} == {"Q4_K", "Q6_K"}
    path = write_model(tmp_path_factory.mktemp("mixture") / "model-Q4_K_M.gguf", family, model, blocks)
    return path, np.array(rounded(family, model, blocks)(TOKENS))


def test_on_a_cpu_it_has_the_logits_of_the_reference(mixture: tuple[Path, np.ndarray]) -> None:
    path, expected = mixture
    loaded = load_model(str(path), device="cpu")
    np.testing.assert_allclose(np.array(loaded.model(TOKENS)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.float32, 0.02), (mx.float16, 0.03)])
def test_packed_as_for_a_gpu_it_has_nearly_the_same(
    mixture: tuple[Path, np.ndarray], dtype: mx.Dtype, tolerance: float
) -> None:
    """Random weights are the worst that there is to round: the difference is that of Q6_K in 8 bits."""
    path, expected = mixture
    header = read_gguf(path)
    built = build_model(header, packed=True)
    assert sum(built.load_weights(header, dtype)) > 0
    assert isinstance(built.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    assert (built.model.layers[0].mlp.up_proj.bits, built.model.lm_head.bits) == (4, 8)
    logits = np.array(built.model(TOKENS).astype(mx.float32))
    assert np.sqrt(np.mean((logits - expected) ** 2) / np.mean(expected**2)) < tolerance


@pytest.mark.long
def test_the_demo_as_q4_k_m_predicts_what_it_did(tmp_path: Path) -> None:
    """Its rows of 576 are no multiple of 256: such files hold Q5_0 and Q8_0 beside the K types."""
    demo = find_demo()
    if demo is None:
        pytest.skip("the demo model is not installed")
    header = read_gguf(demo)
    writer = gguf.GGUFWriter(tmp_path / "demo-Q4_K_M.gguf", "llama")
    for key, value in header.metadata.items():
        if key != "general.architecture":
            _write(writer, key, value)
    kinds = set()
    for tensor in header.tensors.values():
        [array] = read_array(tensor, Place(tensor.name, tensor.shape), mx.float32).values()
        kind = kind_of(tensor.name, tensor.shape[-1])
        kinds.add(kind)
        values = np.array(array.astype(mx.float32))
        raw_dtype = None if kind is None else gguf.GGMLQuantizationType[kind]
        writer.add_tensor(tensor.name, values if kind is None else quantize(kind, values), raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert kinds == {None, "Q8_0", "Q5_0", "Q6_K"}
    prompt = mx.array([load_model(str(demo)).tokenizer.encode("The capital of France is Paris. It lies on the Seine.")])
    ours, original = (
        np.array(load_model(str(path), device="cpu").model(prompt)) for path in (tmp_path / "demo-Q4_K_M.gguf", demo)
    )
    assert np.sqrt(np.mean((ours - original) ** 2) / np.mean(original**2)) < 0.25
    assert (ours.argmax(axis=-1) == original.argmax(axis=-1)).mean() > 0.6


def _write(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
