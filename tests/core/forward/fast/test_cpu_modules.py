"""The faster forms of mlx-lm's modules compute what the modules did, for packed tokens and for mlx-lm's own calls."""

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_agent_llm.core.forward.fast.adaptation import adapt
from mlx_agent_llm.core.forward.fast.cpu_modules import speed_up_modules
from mlx_agent_llm.testing import tiny_model


@pytest.fixture(autouse=True)
def on_the_cpu() -> None:
    mx.set_default_device(mx.Device(mx.cpu))


def close(left: mx.array, right: mx.array) -> None:
    np.testing.assert_allclose(np.array(left), np.array(right), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_a_model_says_the_same_to_mlx_lms_own_call(model_type: str) -> None:
    model, tokens = tiny_model(model_type), mx.arange(1, 40)[None]
    before = model(tokens)
    mx.eval(before)
    adapt(model, speed_up_modules)
    names = {type(module).__name__ for _, module in model.named_modules()}
    assert {"FastSwigluMLP", "SharedAnglesRoPE"} <= names
    close(model(tokens), before)


@pytest.mark.parametrize("traditional", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_packed_tokens_are_rotated_as_mlx_rotates_them(traditional: bool, scale: float) -> None:
    plain, fast = nn.RoPE(16, traditional, 500.0, scale), nn.RoPE(16, traditional, 500.0, scale)
    holder = nn.Module()
    holder.rope = fast
    adapt(holder, speed_up_modules)
    positions = mx.array([0, 1, 5, 1000, 4095])
    for heads in (4, 2):
        x = mx.random.normal((5, heads, 1, 16), key=mx.random.key(heads))
        close(fast(x, offset=positions), plain(x, offset=positions))
    later = positions + 1
    close(fast(x, offset=later), plain(x, offset=later))


def test_heads_that_are_rotated_in_part_and_other_layouts_are_left_to_mlx() -> None:
    plain, fast = nn.RoPE(8), nn.RoPE(8)
    holder = nn.Module()
    holder.rope = fast
    adapt(holder, speed_up_modules)
    for x, offset in (
        (mx.random.normal((3, 2, 1, 16), key=mx.random.key(0)), mx.array([1, 2, 3])),
        (mx.random.normal((1, 2, 5, 8), key=mx.random.key(1)), 7),
        (mx.random.normal((3, 2, 1, 8), key=mx.random.key(2)).astype(mx.float16), mx.array([1, 2, 3])),
    ):
        assert mx.array_equal(fast(x, offset=offset), plain(x, offset=offset))


class OtherMLP(nn.Module):
    """The same three layers put together in another way."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def __call__(self, x: mx.array) -> mx.array:
        output: mx.array = self.down_proj(nn.gelu(self.gate_proj(x)) * self.up_proj(x))
        return output


def test_a_module_of_the_same_layers_that_computes_something_else_is_left_alone() -> None:
    holder = nn.Module()
    holder.mlp = OtherMLP()
    adapt(holder, speed_up_modules)
    assert type(holder.mlp) is OtherMLP


def test_doing_it_again_changes_nothing() -> None:
    model = tiny_model()
    adapt(model, speed_up_modules)
    classes = [type(module) for _, module in model.named_modules()]
    adapt(model, speed_up_modules)
    assert [type(module) for _, module in model.named_modules()] == classes


def test_a_layer_with_many_outputs_is_computed_tile_by_tile() -> None:
    holder = nn.Module()
    holder.head, holder.narrow = nn.Linear(8, 20_000), nn.Linear(8, 4096)
    holder.embedding = nn.Embedding(20_001, 8)
    x = mx.random.normal((3, 1, 8), key=mx.random.key(0))
    expected = holder.head(x), holder.embedding.as_linear(x)
    mx.eval(expected)
    adapt(holder, speed_up_modules)
    assert type(holder.narrow) is nn.Linear
    assert type(holder.head) is not nn.Linear
    close(holder.head(x), expected[0])
    close(holder.embedding.as_linear(x), expected[1])


def test_engines_in_several_threads_may_serve_one_model() -> None:
    rope = nn.RoPE(16)
    holder = nn.Module()
    holder.rope = rope
    adapt(holder, speed_up_modules)
    wrong = []

    def rotate(start: int) -> None:
        x = mx.ones((3, 2, 1, 16))
        for step in range(100):
            positions = mx.arange(start + step, start + step + 3)
            first, second = rope(x, offset=positions), rope(x, offset=positions)
            expected = nn.RoPE(16)(x, offset=positions)
            if not mx.allclose(first, expected, atol=1e-4) or not mx.allclose(second, expected, atol=1e-4):
                wrong.append(step)

    threads = [threading.Thread(target=rotate, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
