"""What the engine must know of a model before it runs, found by building one forward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from mlx_agent_llm.core.forward.layers.served_cache import LentKeys, ServedCache, lend, lend_all
from mlx_agent_llm.core.forward.model_faults import refuse_faults_of
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

    Raises UnsupportedModelError for layers that are neither attention through the seam nor recurrent.
    """
    install_seam()
    caches: list[Any] = model.make_cache() if hasattr(model, "make_cache") else [KVCache() for _ in model.layers]
    nesting = tuple(len(cache.caches) if isinstance(cache, CacheList) else None for cache in caches)
    leaves = [leaf for cache in caches for leaf in (cache.caches if isinstance(cache, CacheList) else (cache,))]
    name = type(model).__module__
    probes = [_probe(name, leaf) for leaf in leaves]
    with refuse_faults_of(model):
        logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=_arranged(probes, nesting))
    modules = {id(module): module for probe in probes if isinstance(probe, _StateProbe) for module in probe.modules}
    return ModelShape([probe.recorded for probe in probes], logits.shape[-1], nesting, tuple(modules.values()))


def _arranged(leaves: Sequence[Any], nesting: Sequence[int | None]) -> list[Any]:
    left = iter(leaves)
    return [next(left) if count is None else CacheList(*(next(left) for _ in range(count))) for count in nesting]


def _probe(name: str, leaf: Any) -> _Probe | _StateProbe:
    if isinstance(leaf, ArraysCache):
        return _StateProbe(name, leaf)
    if type(leaf) is KVCache:
        return _Probe(name, None)
    if type(leaf) is RotatingKVCache and leaf.keep == 0:
        return _Probe(name, leaf.max_size)
    raise UnsupportedModelError(
        f"{name}: a layer that keeps {type(leaf).__name__}: only {KVCache.__name__} (attention), "
        f"{RotatingKVCache.__name__} (of a window alone) and {ArraysCache.__name__} (recurrent layers) are served"
    )


class _AskedWindow(NamedTuple):
    """What a model hands to attention as its mask where it asked for a window."""

    size: int


class _Probe(ServedCache):
    """A cache that keeps nothing but the shape of what a layer writes, and which tokens attention is to see."""

    offset = 0

    def __init__(self, name: str, window: int | None) -> None:
        self._name, self._window = name, window
        self._written: tuple[LentKeys, mx.array] | None = None
        self._uses: set[tuple[int | None, bool]] = set()  # window, and whether values are the keys

    def make_mask(
        self, num_tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> _AskedWindow | None:
        return None if window_size is None else _AskedWindow(window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self._written = lend(keys, self), values
        return self._written

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        keys = lend_all(self, mx.array([1]))
        return keys, keys

    def serve(
        self,
        queries: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: mx.array | object | None,
        sinks: mx.array | None,
    ) -> mx.array:
        keys, own_values = self._read_written()
        is_latent = values is keys
        if mask is not None and not isinstance(mask, _AskedWindow) and not is_latent:
            raise UnsupportedModelError(f"{self._name}: attention with a mask of the model's own")
        windows = (self._window, mask.size if isinstance(mask, _AskedWindow) else None)
        self._uses.add((min((size for size in windows if size is not None), default=None), is_latent))
        width = keys.shape[3] if is_latent else own_values.shape[3]
        return mx.zeros((*queries.shape[:3], width), dtype=queries.dtype)

    @property
    def recorded(self) -> KVShape:
        keys, values = self._read_written()
        if not self._uses:
            raise UnsupportedModelError(f"{self._name}: attention that is computed without mlx-lm's function")
        if len(self._uses) > 1:
            raise UnsupportedModelError(f"{self._name}: the keys of one layer are read in several ways: {self._uses}")
        [(window, is_latent)] = self._uses
        return KVShape(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype, window, is_latent)

    def _read_written(self) -> tuple[LentKeys, mx.array]:
        if self._written is None:
            raise UnsupportedModelError(f"{self._name}: a layer keeps no keys and values")
        return self._written


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
