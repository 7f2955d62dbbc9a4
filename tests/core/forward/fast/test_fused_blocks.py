"""A fused block computes what the block computed, for paged layers and mlx-lm's own calls; others are left alone."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_agent_llm.core.forward.fast.adaptation import Form, adapt
from mlx_agent_llm.core.forward.fast.fused_blocks import fuse_blocks
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core, run
from tests.support.model_types.tiny import tiny

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PROMPTS = [list(range(40)), list(range(100, 117)), [7], list(range(33))]


def num_fused(model: nn.Module) -> int:
    """Fuse the model's blocks; how many have their fused form."""
    adapt(model, fuse_blocks)
    return sum(isinstance(block, Form) for block in model.layers)


def quantized(model: nn.Module) -> nn.Module:
    nn.quantize(model, group_size=32, bits=4)
    return model


def of_type(dtype: mx.Dtype) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = tiny_model("qwen3")
        model.set_dtype(dtype)
        return model

    return make


MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": tiny_model,
    "llama with biases": lambda: tiny_model(attention_bias=True, mlp_bias=True),
    "llama, pairs of neighbours": lambda: tiny_model(rope_traditional=True),
    "llama 3": lambda: tiny_model(rope_scaling=LLAMA3),
    "linear positions": lambda: tiny_model(rope_scaling={"type": "linear", "factor": 4.0}),
    "qwen2": lambda: tiny_model("qwen2", hidden_size=256),  # 64 a head, which a GPU's kernels serve
    "qwen3": lambda: tiny_model("qwen3"),
    "qwen3 of float16": of_type(mx.float16),
    "qwen3 of bfloat16": of_type(mx.bfloat16),
    "quantized": lambda: quantized(tiny_model("qwen3", hidden_size=64)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fused_model_says_the_same_to_mlx_lms_own_call(name: str) -> None:
    model, tokens = MODELS[name](), mx.arange(1, 40)[None]
    expected = model(tokens).astype(mx.float32)
    mx.eval(expected)
    num_bytes = sum(array.nbytes for _, array in nn.utils.tree_flatten(model.parameters()))
    assert num_fused(model) == len(model.layers)
    assert sum(array.nbytes for _, array in nn.utils.tree_flatten(model.parameters())) == num_bytes
    np.testing.assert_allclose(np.array(model(tokens).astype(mx.float32)), np.array(expected), atol=1e-2)


@pytest.mark.parametrize("name", [name for name in MODELS if "float16" not in name])
def test_a_fused_model_decodes_the_same_tokens_in_an_engine(name: str) -> None:
    mx.random.seed(0)
    expected = run(make_core(MODELS[name]()), *PROMPTS)
    mx.random.seed(0)
    model = MODELS[name]()
    assert num_fused(model) == len(model.layers)
    assert run(make_core(model), *PROMPTS) == expected


def test_doing_it_again_changes_nothing() -> None:
    model = tiny_model()
    adapt(model, fuse_blocks)
    classes = [type(module) for _, module in model.named_modules()]
    assert num_fused(model) == len(model.layers)
    assert [type(module) for _, module in model.named_modules()] == classes


def test_what_was_joined_are_views_of_one_memory() -> None:
    model = tiny_model()
    adapt(model, fuse_blocks)
    attention = model.layers[0].self_attn
    addresses = [np.array(layer.weight, copy=False).ctypes.data for layer in (attention.q_proj, attention.k_proj)]
    assert addresses[1] - addresses[0] == attention.q_proj.weight.nbytes


def changed(**attributes: Any) -> nn.Module:
    """A model whose blocks are called the same and compute something else."""
    model = tiny_model("qwen3")
    for block in model.layers:
        base = type(block)
        block.__class__ = type("Other", (base,), attributes)
    return model


def scaled_residual(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
    hidden = x + 0.5 * self.self_attn(self.input_layernorm(x), mask, cache)
    output: mx.array = hidden + self.mlp(self.post_attention_layernorm(hidden))
    return output


def parallel(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
    normed = self.input_layernorm(x)
    output: mx.array = x + self.self_attn(normed, mask, cache) + self.mlp(normed)
    return output


def wants_more(self: Any, x: mx.array, mask: Any, cache: Any, more: Any) -> mx.array:
    return x


@pytest.mark.parametrize("call", [scaled_residual, parallel, wants_more], ids=lambda call: str(call.__name__))
def test_a_block_of_the_same_parts_that_computes_something_else_is_left_alone(call: Callable[..., mx.array]) -> None:
    model = changed(__call__=call)
    assert num_fused(model) == 0
    assert {type(block).__name__ for block in model.layers} == {"Other"}


def with_attention(change: Callable[[Any], None]) -> nn.Module:
    model = tiny_model("qwen3")
    for block in model.layers:
        change(block.self_attn)
    return model


class Backwards(nn.RoPE):
    """Turns the other way round."""

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        turned: mx.array = super().__call__(x, offset=-mx.array(offset))
        return turned


def turn_backwards(attention: Any) -> None:
    attention.rope.__class__ = Backwards


def pretend_frequencies(attention: Any) -> None:
    turn_backwards(attention)
    attention.rope._freqs = 10000 ** (mx.arange(0, 8, 2) / 8)


def norm_all_heads_together(attention: Any) -> None:
    attention.q_norm = nn.RMSNorm(32)


def norm_queries_alone(attention: Any) -> None:
    del attention.k_norm


@pytest.mark.parametrize(
    "change",
    [turn_backwards, pretend_frequencies, norm_all_heads_together, norm_queries_alone],
    ids=lambda c: c.__name__,
)
def test_an_attention_whose_heads_are_treated_otherwise_is_left_alone(change: Callable[[Any], None]) -> None:
    assert num_fused(with_attention(change)) == 0


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "olmo2", "phi3", "cohere"])
def test_blocks_of_other_families_are_left_alone(model_type: str) -> None:
    assert num_fused(tiny_model(model_type)) == 0


def test_a_block_that_returns_more_than_its_output_is_left_alone() -> None:
    assert num_fused(tiny("gemma4_text")) == 0
