"""A model that was adapted is whole again when the last one who needed that is done, and says the same throughout."""

import gc
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.generate import generate_step

from mlx_agent_llm.core.forward.fast.adaptation import Adapt, Adaptation, Form, adapt
from mlx_agent_llm.core.forward.fast.cpu_modules import speed_up_modules
from mlx_agent_llm.core.forward.fast.fused_blocks import fuse_blocks
from mlx_agent_llm.core.forward.sampled_rows import keep_only_sampled_rows
from mlx_agent_llm.testing import tiny_model
from tests.support.modules import looks

WAYS: list[list[Adapt]] = [[speed_up_modules], [fuse_blocks], [keep_only_sampled_rows, speed_up_modules, fuse_blocks]]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: tiny_model(vocab_size=20_000),  # enough for a tiled LM head
    "qwen3 with an LM head": lambda: tiny_model("qwen3", vocab_size=20_000, tie_word_embeddings=False),
    "quantized": lambda: quantized(tiny_model("qwen3", hidden_size=64)),
}


def quantized(model: nn.Module) -> nn.Module:
    nn.quantize(model, group_size=32, bits=4)
    return model


def says(model: nn.Module) -> list[int]:
    return [int(token) for token, _ in generate_step(mx.array([5, 3, 1]), model, max_tokens=12)]


def num_forms(model: nn.Module) -> int:
    return sum(isinstance(module, Form) for _, module in model.named_modules())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ways", WAYS, ids=["faster modules", "fused blocks", "all"])
def test_what_is_undone_leaves_nothing(name: str, ways: list[Adapt]) -> None:
    model = MODELS[name]()
    before, said = looks(model), says(model)
    adaptation = adapt(model, *ways)
    assert num_forms(model) > 0
    assert says(model) == said
    adaptation.undo()
    assert looks(model) == before
    assert says(model) == said
    adaptation.undo()
    assert looks(model) == before


@pytest.mark.parametrize("first_to_leave", [fuse_blocks, speed_up_modules], ids=lambda way: str(way.__name__))
def test_a_model_that_several_serve_is_whole_again_after_the_last(first_to_leave: Adapt) -> None:
    model = tiny_model()
    before, said = looks(model), says(model)
    adaptations = {way: adapt(model, keep_only_sampled_rows, way) for way in (fuse_blocks, speed_up_modules)}
    again = adapt(model, keep_only_sampled_rows, fuse_blocks)
    adaptations.pop(first_to_leave).undo()
    assert sum(isinstance(block, Form) for block in model.layers) == len(model.layers)
    assert isinstance(model.model, Form)
    assert all(isinstance(block.mlp, Form) == (first_to_leave is fuse_blocks) for block in model.layers)
    assert says(model) == said
    again.undo()
    assert num_forms(model) > 0
    adaptations.popitem()[1].undo()
    assert looks(model) == before


def test_what_raises_leaves_the_model_as_it_was() -> None:
    model, other = tiny_model(), tiny_model()
    before, held = looks(model), adapt(other, speed_up_modules)

    def raise_a_fault(model: nn.Module, adaptation: Adaptation) -> None:
        raise RuntimeError("a fault")

    for one in (model, other):
        with pytest.raises(RuntimeError, match="a fault"):
            adapt(one, speed_up_modules, fuse_blocks, raise_a_fault)
    assert looks(model) == before
    assert num_forms(other) > 0
    held.undo()
    assert looks(other) == before


@pytest.mark.parametrize("ways", WAYS, ids=["faster modules", "fused blocks", "all"])
def test_the_memory_of_a_model_is_free_when_the_model_is(ways: list[Adapt]) -> None:
    gc.collect()
    gc.disable()
    try:
        num_bytes = mx.get_active_memory()
        model = tiny_model(hidden_size=256)
        assert mx.get_active_memory() > num_bytes + 500_000
        adapt(model, *ways).undo()
        del model
        assert mx.get_active_memory() < num_bytes + 50_000
    finally:
        gc.enable()


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_of_a_model_that_was_fused_are_the_same_and_can_be_set_as_any_others(name: str) -> None:
    model, fresh = MODELS[name](), MODELS[name]()
    adapt(model, fuse_blocks).undo()
    weights, expected = (dict(nn.utils.tree_flatten(one.parameters())) for one in (model, fresh))
    assert weights.keys() == expected.keys()
    assert all(mx.array_equal(weights[key], expected[key]) for key in weights)
    for one in (model, fresh):
        attention = one.layers[0].self_attn
        attention.k_proj.update({"weight": mx.roll(attention.k_proj.weight, 1, axis=0)})
        one.set_dtype(mx.bfloat16)
    tokens = mx.arange(9)[None]
    assert np.array_equal(*(np.array(one(tokens).astype(mx.float32)) for one in (model, fresh)))
