"""What the engine must know of a model before it runs, found by building one forward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache

from mlx_agent_llm.core.forward.layers.served_cache import ServedCache
from mlx_agent_llm.core.forward.seam import install_seam
from mlx_agent_llm.core.kv.layer_shape import ArrayShape, KVShape, LayerShape, StateShape
from mlx_agent_llm.errors import UnsupportedModelError

T = TypeVar("T")


class ModelShape(NamedTuple):
    """What the engine must know of a model before it runs.

    layers: what each leaf of the model's own make_cache() keeps, in order. nesting: how many leaves each entry of it
    has; None of one that is a leaf itself. state_modules: those that read and write recurrent states.
    """

    layers: list[LayerShape]
    vocab_size: int  # the width of the logits
    nesting: tuple[int | None, ...]
    state_modules: tuple[nn.Module, ...] = ()

    def arrange(self, leaves: Sequence[Any]) -> list[Any]:
        """Leaves as the model takes them for its cache."""
        return _arranged(leaves, self.nesting)


def probe_model(model: nn.Module) -> ModelShape:
    """Find a model's shape by building one forward without running it.

    Raises UnsupportedModelError for layers that are neither plain full attention nor recurrent.
    """
    install_seam()
    caches: list[Any] = model.make_cache() if hasattr(model, "make_cache") else [KVCache() for _ in model.layers]
    nesting = tuple(len(cache.caches) if isinstance(cache, CacheList) else None for cache in caches)
    leaves = [leaf for cache in caches for leaf in (cache.caches if isinstance(cache, CacheList) else (cache,))]
    kinds = {type(leaf).__name__ for leaf in leaves if type(leaf) not in (KVCache, ArraysCache)}
    if kinds:
        raise UnsupportedModelError(
            f"layers that keep {sorted(kinds)}: only {KVCache.__name__} (full attention) and {ArraysCache.__name__} "
            "(recurrent layers) are served"
        )
    name = type(model).__module__
    probes = [_StateProbe(name, leaf) if isinstance(leaf, ArraysCache) else _Probe(name) for leaf in leaves]
    logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=_arranged(probes, nesting))
    modules = {id(module): module for probe in probes if isinstance(probe, _StateProbe) for module in probe.modules}
    return ModelShape([probe.recorded for probe in probes], logits.shape[-1], nesting, tuple(modules.values()))


def _arranged(leaves: Sequence[Any], nesting: Sequence[int | None]) -> list[Any]:
    left = iter(leaves)
    return [next(left) if count is None else CacheList(*(next(left) for _ in range(count))) for count in nesting]


class _Probe(ServedCache):
    """A cache that keeps nothing but the shape of what a layer writes, and refuses windows and sinks."""

    offset = 0

    def __init__(self, name: str) -> None:
        self._name = name
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


class _StateProbe(ArraysCache):  # type: ignore[misc]
    """An mlx-lm cache of one state, which notes the modules that read or write it."""

    def __init__(self, name: str, cache: ArraysCache) -> None:
        super().__init__(len(cache.cache))
        self._name = name
        self.modules: list[nn.Module] = []

    def __getitem__(self, index: int) -> Any:
        self._note_module(sys._getframe(1))
        return super().__getitem__(index)

    def __setitem__(self, index: int, value: mx.array) -> None:
        self._note_module(sys._getframe(1))
        super().__setitem__(index, value)

    def _note_module(self, frame: Any) -> None:
        """Note the innermost module whose code this is; it has to be given the cache itself."""
        while not (frame.f_code.co_name == "__call__" and isinstance(frame.f_locals.get("self"), nn.Module)):
            frame = frame.f_back
        if not any(value is self for value in frame.f_locals.values()):
            raise UnsupportedModelError(f"{self._name}: a recurrent state beside attention in one module")
        module = frame.f_locals["self"]
        if all(module is not known for known in self.modules):
            self.modules.append(module)

    @property
    def recorded(self) -> StateShape:
        if any(array is None for array in self.cache):
            raise UnsupportedModelError(f"{self._name}: a recurrent layer that keeps no state")
        return StateShape(tuple(ArrayShape(tuple(array.shape), array.dtype) for array in self.cache))
