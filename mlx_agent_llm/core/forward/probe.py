"""What the engine must know of a model before it runs, found by building one forward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache

from mlx_agent_llm.core.forward.fast.capped_attention import has_capped_form
from mlx_agent_llm.core.forward.layers.layer import leaves_of
from mlx_agent_llm.core.forward.layers.served_cache import AllKeys, LentKeys, ServedCache, lend, lend_all
from mlx_agent_llm.core.forward.model_faults import refuse_faults_of
from mlx_agent_llm.core.forward.seam import install_seam
from mlx_agent_llm.core.kv.layer_shape import ArrayShape, KVShape, LayerShape, StateShape
from mlx_agent_llm.errors import UnsupportedModelError

# Of several tokens at once, in MLX 0.32.4 on a CPU and whatever the weights; no error could be raised of it.
_ENDS_THE_PROCESS = ("mlx_lm.models.phi3small",)


class ModelShape(NamedTuple):
    """What the engine must know of a model before it runs.

    layers: what each leaf of the model's own make_cache() keeps, in order. nesting: how many leaves each entry of it
    has; None of one that is a leaf itself. state_modules: those that read and write recurrent states; capped_modules:
    those that compute attention themselves for a soft cap alone; gathered_modules: those that do for anything else.
    """

    layers: list[LayerShape]
    vocab_size: int  # the width of the logits
    nesting: tuple[int | None, ...]
    state_modules: tuple[nn.Module, ...] = ()
    capped_modules: tuple[nn.Module, ...] = ()
    gathered_modules: tuple[nn.Module, ...] = ()

    def arrange(self, leaves: Sequence[Any]) -> list[Any]:
        """Leaves as the model takes them for its cache."""
        return _arranged(leaves, self.nesting)


def probe_model(model: nn.Module) -> ModelShape:
    """Find a model's shape by building one forward without running it.

    Raises UnsupportedModelError for layers that are neither attention through the seam nor recurrent.
    """
    if type(model).__module__ in _ENDS_THE_PROCESS:
        raise UnsupportedModelError(f"{type(model).__module__}: in MLX, mlx-lm's own forward of it ends the process")
    install_seam()
    caches: list[Any] = model.make_cache() if hasattr(model, "make_cache") else [KVCache() for _ in model.layers]
    nesting = tuple(len(cache.caches) if isinstance(cache, CacheList) else None for cache in caches)
    leaves = [leaf for cache in caches for leaf in leaves_of(cache)]
    name = type(model).__module__
    probes = [_probe(name, leaf) for leaf in leaves]
    cache = _arranged(probes, nesting)
    with refuse_faults_of(model):
        logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=cache)
    attention = [probe for probe in probes if isinstance(probe, _Probe)]
    for probe in attention:
        probe.find_capped_form()
    _gather_together(attention, [entry for entry in cache if isinstance(entry, CacheList)])
    states = [module for probe in probes if isinstance(probe, _StateProbe) for module in probe.modules]
    capped = [module for probe in attention if probe.is_capped for module in probe.modules]
    gathered = [module for probe in attention if probe.is_gathered for module in probe.modules]
    layers = [probe.recorded for probe in probes]
    return ModelShape(layers, logits.shape[-1], nesting, *map(_without_repeats, (states, capped, gathered)))


def _gather_together(probes: Sequence[_Probe], entries: Sequence[CacheList]) -> None:
    """Mark those whose modules attend themselves because of another one."""
    if any(probe.is_chunked for probe in probes):  # such a model makes masks and scales of positions itself
        for probe in probes:
            probe.gather()
    for entry in entries:
        own = [leaf for leaf in entry.caches if isinstance(leaf, _Probe)]
        if any(probe.is_gathered for probe in own):
            for probe in own:
                probe.gather()


def _without_repeats(modules: Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    return tuple({id(module): module for module in modules}.values())


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
    if type(leaf) is ChunkedKVCache:
        return _Probe(name, leaf.chunk_size, is_chunked=True)
    raise UnsupportedModelError(
        f"{name}: a layer that keeps {type(leaf).__name__}: only {KVCache.__name__} (attention), "
        f"{RotatingKVCache.__name__} (of a window alone), {ChunkedKVCache.__name__} and {ArraysCache.__name__} "
        "(recurrent layers) are served"
    )


class _AskedWindow(mx.array):
    """What a model hands to attention as its mask where it asked for a window; to other code it hides nothing."""

    window_size: int


class _Probe(ServedCache):
    """A cache that keeps nothing but the shape of what a layer writes, and which tokens attention is to see."""

    offset = 0
    start_position = 0

    def __init__(self, name: str, window: int | None, *, is_chunked: bool = False) -> None:
        self._name, self._window, self.is_chunked = name, window, is_chunked
        self._written: KVShape | None = None
        self.keys: mx.array | None = None  # for models that set these of a cache
        self.values: mx.array | None = None
        self.modules: list[nn.Module] = []  # that write
        self._uses: set[tuple[int | None, bool]] = set()  # window, and whether values are the keys
        self._is_its_own = False  # attention by mlx-lm's function over something else than what was written
        self.is_capped = False

    def make_mask(
        self, num_tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> _AskedWindow | None:
        if window_size is not None and self._window is not None and window_size > self._window:
            raise UnsupportedModelError(
                f"{self._name}: window_size={window_size} of a cache that keeps {self._window} tokens: single tokens "
                "see fewer than those of a chunk"
            )
        if window_size is None:
            return None
        mask = _AskedWindow(mx.ones((1, 1), dtype=mx.bool_))
        mask.window_size = window_size
        return mask

    def maybe_trim_front(self) -> None:
        pass

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self._written = KVShape(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype)
        self.modules += _innermost_module_with(self)
        self.keys, self.values = keys, values
        return lend(keys, self), values

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        keys = lend_all(self, mx.array([1]))
        return keys, keys

    def serve(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: mx.array | object | None,
        sinks: mx.array | None,
    ) -> mx.array:
        shape = self._read_written()
        is_latent = isinstance(values, LentKeys) and not isinstance(values, AllKeys)
        is_seen = mask is None or isinstance(mask, _AskedWindow) or is_latent
        self._is_its_own |= not is_seen or not (isinstance(keys, LentKeys) or keys.shape[1] == shape.kv_heads)
        windows = (self._window, mask.window_size if isinstance(mask, _AskedWindow) else None)
        self._uses.add((min((size for size in windows if size is not None), default=None), is_latent))
        width = shape.key_dim if is_latent else shape.value_dim
        return mx.zeros((*queries.shape[:3], width), dtype=queries.dtype)

    @property
    def recorded(self) -> KVShape:
        shape = self._read_written()
        if self.is_capped:
            return shape._replace(window=self._window)
        if self.is_gathered:
            if not self.modules:
                raise UnsupportedModelError(f"{self._name}: attention of its own outside of a module with its cache")
            return shape._replace(window=self._window, is_chunked=self.is_chunked, is_gathered=True)
        if len(self._uses) > 1:
            raise UnsupportedModelError(f"{self._name}: the keys of one layer are read in several ways: {self._uses}")
        [(window, is_latent)] = self._uses
        return shape._replace(window=window, is_latent=is_latent)

    @property
    def is_gathered(self) -> bool:
        """Whether the model's own module attends."""
        return not self.is_capped and (self._is_its_own or not self._uses)

    def gather(self) -> None:
        """Leave attention to the model's own module, whatever this layer does by itself."""
        self._is_its_own = True

    def find_capped_form(self) -> None:
        """Note whether the module attends itself for a soft cap alone."""
        if self._written is not None and not self._uses and not self._is_its_own:
            shape = self._written
            self.is_capped = bool(self.modules) and all(has_capped_form(module, shape) for module in self.modules)

    def _read_written(self) -> KVShape:
        if self._written is None:
            raise UnsupportedModelError(f"{self._name}: a layer keeps no keys and values")
        return self._written


def _innermost_module_with(cache: Any) -> list[nn.Module]:
    """The module that is being called and has the cache among its arguments, or within one; none where none has."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not probe_model.__code__:
        module = frame.f_locals.get("self")
        if frame.f_code.co_name == "__call__" and isinstance(module, nn.Module):
            for value in frame.f_locals.values():
                if any(leaf is cache for leaf in leaves_of(value)):
                    return [module]
        frame = frame.f_back  # type: ignore[assignment]
    return []


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
