"""What is found of a model before it runs, and what is refused of it by name."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import ConcatenateKVCache, RotatingKVCache

from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.testing import tiny_model


def test_the_shape_of_each_layer_and_of_the_logits_is_found() -> None:
    shape = probe_model(tiny_model("qwen3", num_hidden_layers=3, head_dim=16, num_key_value_heads=1, vocab_size=300))
    assert shape.layers == [KVShape(1, 16, 16, mx.float32)] * 3
    assert shape.vocab_size == 300


class Layer(nn.Module):
    """Attention that does as it is told with its cache."""

    def __init__(self, windows: Sequence[int | None], mask: mx.array | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._windows, self._mask = windows, mask

    def __call__(self, states: mx.array, cache: Any) -> mx.array:
        keys, values = cache.update_and_fetch(states, states)
        for window in self._windows:
            mask = self._mask if self._mask is not None else cache.make_mask(1, window_size=window)
            states = cache.serve(states, keys, values, scale=1.0, mask=mask, sinks=None)
        return states


class Attending(nn.Module):
    """A model of one layer."""

    def __init__(self, windows: Sequence[int | None] = (None,), mask: mx.array | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = [Layer(windows, mask)]

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        return self.layers[0](mx.zeros((1, 2, 1, 4)), cache[0])[:, 0]


class Idle(Attending):
    """Writes nothing."""

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        return mx.zeros((1, 1, 4))


def test_plain_full_attention_is_served() -> None:
    assert probe_model(Attending()).layers == [KVShape(2, 4, 4, mx.float32)]


def test_the_window_is_the_one_that_the_mask_asks_for() -> None:
    assert probe_model(Attending([8])).layers == [KVShape(2, 4, 4, mx.float32, window=8)]


@pytest.mark.parametrize("model", [Attending([]), Attending(mask=mx.ones((1, 1), dtype=mx.bool_))])
def test_a_module_that_attends_itself_or_with_a_mask_of_its_own_is_given_sequences(model: Attending) -> None:
    shape = probe_model(model)
    assert shape.layers == [KVShape(2, 4, 4, mx.float32, is_gathered=True)]
    assert shape.gathered_modules == (model.layers[0],)


def with_cache(*leaves: Any) -> nn.Module:
    model = Attending([8])
    model.make_cache = lambda: list(leaves)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Idle(), "keeps no keys and values"),
        (Attending([8, None]), "read in several ways"),
        (with_cache(RotatingKVCache(7)), "window_size=8 of a cache that keeps 7 tokens"),  # type: ignore[no-untyped-call]
        (with_cache(RotatingKVCache(8, keep=4)), "keeps RotatingKVCache: only"),  # type: ignore[no-untyped-call]
        (with_cache(ConcatenateKVCache()), "keeps ConcatenateKVCache: only KVCache"),  # type: ignore[no-untyped-call]
    ],
)
def test_what_is_not_served_is_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        probe_model(model)


def test_a_cache_that_keeps_more_than_the_mask_asks_for_is_seen_as_far_as_that() -> None:
    model = with_cache(RotatingKVCache(9))  # type: ignore[no-untyped-call]
    assert probe_model(model).layers == [KVShape(2, 4, 4, mx.float32, window=8)]
