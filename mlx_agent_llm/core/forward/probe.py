"""What the engine must know of a model before it runs, found by building one forward."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache

from mlx_agent_llm.core.forward.layers.served_cache import ServedCache
from mlx_agent_llm.core.forward.seam import install_seam
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.errors import UnsupportedModelError


class ModelShape(NamedTuple):
    """What the engine must know of a model before it runs."""

    layers: list[KVShape]
    vocab_size: int  # the width of the logits


def probe_model(model: nn.Module) -> ModelShape:
    """Find a model's shape by building one forward without running it.

    Raises UnsupportedModelError for layers that are not plain full attention.
    """
    install_seam()
    if hasattr(model, "make_cache"):
        kinds = {type(cache).__name__ for cache in model.make_cache()}
        if kinds != {KVCache.__name__}:
            raise UnsupportedModelError(
                f"layers that keep {sorted(kinds)}: only {KVCache.__name__} (full attention) is served"
            )
    probes = [_Probe(model) for _ in model.layers]
    logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=probes)
    return ModelShape([probe.recorded for probe in probes], logits.shape[-1])


class _Probe(ServedCache):
    """A cache that keeps nothing but the shape of what a layer writes, and refuses windows and sinks."""

    offset = 0

    def __init__(self, model: nn.Module) -> None:
        self._name = type(model).__module__
        self._shape: KVShape | None = None

    def make_mask(self, num_tokens: int, return_array: bool = False, window_size: int | None = None) -> None:
        if window_size is not None:
            raise UnsupportedModelError(f"{self._name}: window_size={window_size}; only full attention is served")

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self._shape = KVShape(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype)
        return keys, values

    def serve(self, queries: mx.array, values: mx.array, scale: float, sinks: mx.array | None) -> mx.array:
        if sinks is not None:
            raise UnsupportedModelError(f"{self._name}: attention sinks; only plain full attention is served")
        return mx.zeros((*queries.shape[:3], values.shape[3]), dtype=queries.dtype)

    @property
    def recorded(self) -> KVShape:
        if self._shape is None:
            raise UnsupportedModelError(
                f"{self._name}: a layer keeps no keys and values; only full attention is served"
            )
        return self._shape
