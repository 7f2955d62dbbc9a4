"""What the trial at load lets through and what it refuses."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import llama

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.core.forward import trial
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.cores import make_core, run


@pytest.fixture
def wrong_from(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the layers from one on attend otherwise than mlx-lm's would, for chunks or for single tokens."""

    def spoil(first: int, *, chunks: bool) -> None:
        block_call = llama.TransformerBlock.__call__

        def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
            output: mx.array = block_call(self, x, mask, cache)
            is_ours = isinstance(cache, PagedLayer) and self.number >= first
            return output + x[..., ::-1] if is_ours and chunks == bool(cache.current_batch.prompts) else output

        monkeypatch.setattr(llama.TransformerBlock, "__call__", call)

    return spoil


def numbered(num_layers: int = 3) -> nn.Module:
    model = tiny_model(num_hidden_layers=num_layers)
    for number, layer in enumerate(model.layers):
        layer.number = number
    return model


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("first", [0, 2])
def test_a_model_that_computes_otherwise_is_refused_by_its_first_layer_that_does(
    wrong_from: Any, first: int, chunks: bool
) -> None:
    model = numbered()
    wrong_from(first, chunks=chunks)
    message = rf"models\.llama: .* differ from mlx-lm's by .*; first in layer {first} \(TransformerBlock\)"
    with pytest.raises(UnsupportedModelError, match=message):
        make_core(model, check_model=True)
    assert all(type(layer) is llama.TransformerBlock for layer in model.layers), "a refused model is not whole again"


def test_it_can_be_turned_off(wrong_from: Any) -> None:
    model = numbered()
    wrong_from(0, chunks=True)
    make_core(model, check_model=False).close()


def test_an_engine_tries_its_model_unless_it_is_told_not_to(wrong_from: Any) -> None:
    model = numbered()
    wrong_from(0, chunks=True)
    with pytest.raises(UnsupportedModelError, match="first in layer 0"):
        Engine.from_parts(model, ByteTokenizer(), EngineConfig(kv_cache_tokens=64))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"kv_cache_tokens": 16},
        {"block_size": 1, "kv_cache_tokens": 3},
        {"max_tokens_per_step": 5, "max_num_seqs": 2},
        {"prefix_cache": False},
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
def test_a_model_that_computes_alike_passes_and_nothing_is_left_of_the_trial(
    model_type: str, config: dict[str, Any]
) -> None:
    own = {"n_ctx": 512, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 512, "layer_norm_epsilon": 1e-5}
    core = make_core(tiny_model(model_type, **own), check_model=True, **config)
    stats = core.stats()
    assert stats.num_free_blocks == stats.num_blocks
    assert (stats.num_steps, stats.prefix_query_tokens, stats.num_prompt_tokens_computed) == (0, 0, 0)
    core.check_integrity()


def test_the_first_request_says_the_same_after_a_trial_as_without_one() -> None:
    prompts = [list(range(100)), [7] * 30]
    outputs = [run(make_core(tiny_model(), check_model=check), *prompts) for check in (True, False)]
    assert outputs[0] == outputs[1]


def test_other_logits_for_some_tokens_alone_are_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where two experts suit a token alike and 16-bit numbers choose the other one."""
    distance, calls = trial._distance, list[float]()

    def first_is_far(found: mx.array, expected: mx.array) -> float:
        calls.append(0.0)
        return 1.0 if len(calls) == 1 else distance(found, expected)

    monkeypatch.setattr(trial, "_distance", first_is_far)
    make_core(tiny_model(), check_model=True)
    assert len(calls) > 3


def test_a_model_of_somebody_else_s_is_compared_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(llama.Model):  # type: ignore[misc]
        pass

    model = tiny_model()
    model.__class__ = Own
    monkeypatch.setattr(trial, "_distance", lambda found, expected: 1.0)
    make_core(model, check_model=True).close()
    with pytest.raises(UnsupportedModelError):
        make_core(tiny_model(), check_model=True)


def test_logits_that_are_not_finite_are_refused() -> None:
    model: Any = tiny_model()
    model.model.norm.weight = mx.full(model.model.norm.weight.shape, float("nan"))
    with pytest.raises(UnsupportedModelError, match="differ from mlx-lm's by inf"):
        make_core(model, check_model=True)


@pytest.mark.parametrize("fault", [ValueError, TypeError, AttributeError, RuntimeError, KeyError])
def test_what_a_model_s_code_raises_while_an_engine_is_made_is_a_refusal(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    block_call = llama.TransformerBlock.__call__

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if x.shape[0] > 1:
            raise fault("rows of their own")
        output: mx.array = block_call(self, x, mask, cache)
        return output

    model = tiny_model()
    monkeypatch.setattr(llama.TransformerBlock, "__call__", call)
    with pytest.raises(UnsupportedModelError, match=rf"cannot be run over paged layers: {fault.__name__}: .*rows of"):
        make_core(model, check_model=True)


def test_want_of_memory_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: EngineCore, *arguments: Any) -> None:
        raise RuntimeError("[malloc_or_wait] Unable to allocate 17179869184 bytes.")

    monkeypatch.setattr(EngineCore, "_warm_up", forward)
    with pytest.raises(RuntimeError, match="Unable to allocate"):
        make_core(tiny_model())
