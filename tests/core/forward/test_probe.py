"""What is found of a model before it runs, and what is refused of it by name."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.testing import tiny_model


def test_the_shape_of_each_layer_and_of_the_logits_is_found() -> None:
    shape = probe_model(tiny_model("qwen3", num_hidden_layers=3, head_dim=16, num_key_value_heads=1, vocab_size=300))
    assert shape.layers == [KVShape(1, 16, 16, mx.float32)] * 3
    assert shape.vocab_size == 300


class Attending(nn.Module):
    """A model of one layer, which does as it is told with its cache."""

    def __init__(self, window_size: int | None = None, sinks: mx.array | None = None, writes: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = [nn.Linear(1, 1)]
        self._window_size, self._sinks, self._writes = window_size, sinks, writes

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        states = mx.zeros((1, 2, 1, 4))
        cache[0].make_mask(1, window_size=self._window_size)
        _, values = cache[0].update_and_fetch(states, states) if self._writes else (states, states)
        output: mx.array = cache[0].serve(states, values, 1.0, self._sinks)
        return output[:, 0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Attending(window_size=8), "window_size=8"),
        (Attending(sinks=mx.zeros(2)), "attention sinks"),
        (Attending(writes=False), "keeps no keys and values"),
    ],
)
def test_what_is_no_plain_full_attention_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        probe_model(model)


def test_plain_full_attention_is_served() -> None:
    assert probe_model(Attending()).layers == [KVShape(2, 4, 4, mx.float32)]


def test_caches_of_other_kinds_are_refused_by_their_names() -> None:
    model: Any = tiny_model()
    kinds = [KVCache(), RotatingKVCache(8)]  # type: ignore[no-untyped-call]
    type(model).make_cache = lambda self: kinds
    try:
        with pytest.raises(UnsupportedModelError, match=r"\['KVCache', 'RotatingKVCache'\]"):
            probe_model(model)
    finally:
        del type(model).make_cache
