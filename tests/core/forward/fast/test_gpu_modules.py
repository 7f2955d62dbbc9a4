"""The forms of quantized layers compute what the layers did, for rows and for mlx-lm's own calls."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.mla import MultiLinear

from mlx_agent_llm.core.forward.fast.adaptation import adapt
from mlx_agent_llm.core.forward.fast.gpu_modules import speed_up_modules
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core, run
from tests.support.modules import looks

PROMPTS = [list(range(40)), list(range(100, 117)), [7], list(range(33))]


def close(left: mx.array, right: mx.array) -> None:
    np.testing.assert_allclose(np.array(left), np.array(right), rtol=1e-4, atol=1e-4)


def quantized(model_type: str = "qwen3", bits: int = 4, **overrides: Any) -> nn.Module:
    mx.random.seed(0)
    model = tiny_model(model_type, hidden_size=64, **overrides)
    nn.quantize(model, group_size=32, bits=bits)
    return model


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 1, 64), (2, 3, 64), (7, 64), (70, 1, 64)])
def test_a_linear_layer_says_the_same_to_any_call(bits: int, has_bias: bool, shape: tuple[int, ...]) -> None:
    holder = nn.Module()
    holder.layer = nn.QuantizedLinear.from_linear(nn.Linear(64, 96, bias=has_bias), group_size=32, bits=bits)
    x = mx.random.normal(shape, key=mx.random.key(1))
    before = holder.layer(x)
    mx.eval(before)
    adapt(holder, speed_up_of_layers)
    assert type(holder.layer).__name__ == "PackedLinearQuantizedLinear"
    close(holder.layer(x), before)


@pytest.mark.parametrize("shape", [(5, 1, 64), (2, 3, 64)])
def test_an_embedding_is_looked_up_and_multiplied_as_before(shape: tuple[int, ...]) -> None:
    holder = nn.Module()
    holder.layer = nn.QuantizedEmbedding.from_embedding(nn.Embedding(96, 64), group_size=32, bits=8)
    x, tokens = mx.random.normal(shape, key=mx.random.key(1)), mx.array([[3], [95]])
    before = holder.layer.as_linear(x), holder.layer(tokens)
    mx.eval(before)
    adapt(holder, speed_up_of_layers)
    close(holder.layer.as_linear(x), before[0])
    close(holder.layer(tokens), before[1])


@pytest.mark.parametrize("shape", [(5, 4, 1, 64), (1, 4, 1, 64), (1, 4, 3, 64)])
def test_products_of_a_head_each_broadcast_no_weights_over_tokens(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = nn.Module()
    holder.layer = MultiLinear(64, 96, 4).to_quantized(group_size=32, bits=4)
    x = mx.random.normal(shape, key=mx.random.key(1))
    before = holder.layer(x)
    mx.eval(before)
    adapt(holder, speed_up_of_layers)
    shapes = list[tuple[int, ...]]()
    multiply = mx.quantized_matmul

    def noted(x: mx.array, *arguments: Any, **options: Any) -> mx.array:
        shapes.append(x.shape)
        return multiply(x, *arguments, **options)

    monkeypatch.setattr(mx, "quantized_matmul", noted)
    close(holder.layer(x), before)
    assert [product[:2] for product in shapes] == [(1, 4)]


def speed_up_of_layers(holder: nn.Module, adaptation: Any) -> None:
    holder.layers = []
    speed_up_modules(holder, adaptation)


@pytest.mark.parametrize("model_type", ["qwen3", "gemma", "qwen3_moe"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_quantized_model_decodes_the_same_tokens_in_these_forms(model_type: str, is_tied: bool) -> None:
    overrides: dict[str, Any] = {"tie_word_embeddings": is_tied}
    if model_type == "qwen3_moe":
        overrides |= {"num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "moe_intermediate_size": 32}
        overrides |= {"mlp_only_layers": [], "norm_topk_prob": True}
    expected = run(make_core(quantized(model_type, **overrides)), *PROMPTS)
    model = quantized(model_type, **overrides)
    before = looks(model)
    adaptation = adapt(model, speed_up_modules)
    core = make_core(model)
    assert run(core, *PROMPTS) == expected
    core.close()
    adaptation.undo()
    assert looks(model) == before
