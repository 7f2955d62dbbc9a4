"""From a batch to the logits of its sampled rows, through the model and its paged pools."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.compiled_forward import CompiledForward
from mlx_agent_llm.core.forward.device import profile_here
from mlx_agent_llm.core.forward.fast.adaptation import adapt, give_all
from mlx_agent_llm.core.forward.fast.capped_attention import Capped
from mlx_agent_llm.core.forward.fast.gathered_modules import RunBySequences
from mlx_agent_llm.core.forward.fast.quantized_products import quantized_products
from mlx_agent_llm.core.forward.fast.recurrent_modules import RunByStates
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.layers.gathered import GatheredLayer
from mlx_agent_llm.core.forward.layers.latent import LatentLayer
from mlx_agent_llm.core.forward.layers.state import StateLayer
from mlx_agent_llm.core.forward.model_call import Layers, call_model
from mlx_agent_llm.core.forward.model_faults import refuse_faults_of
from mlx_agent_llm.core.forward.probe import ModelShape
from mlx_agent_llm.core.forward.sampled_rows import computes_all_logits, keep_only_sampled_rows
from mlx_agent_llm.core.kv.layer_shape import LayerShape, StateShape, sees_window
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.step_clock import StepClock
from mlx_agent_llm.process.allocator import keep_freed_buffers
from mlx_agent_llm.process.default_device import default_device


class ModelRunner:
    """Owns the pools and runs the model over packed batches; every token is a row of its own.

    The model's modules are in forms of ours until close.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: ModelShape,
        sizes: PoolSizes,
        block_size: int,
        clock: StepClock,
        device: mx.Device,
        *,
        compile: bool,
    ) -> None:
        self._model: Any = model
        self._shape, self._sizes, self._block_size = shape, sizes, block_size
        self._clock = clock
        self._device = device
        self._last_logits: mx.array | None = None
        self._in_flight_ready_at: float | None = None
        with self.on_device():
            self.profile = profile_here()
            own_ways = (
                give_all(shape.state_modules, RunByStates),
                give_all(shape.capped_modules, Capped),
                give_all(shape.gathered_modules, RunBySequences),
            )
            with refuse_faults_of(model):
                self._adaptation = adapt(model, *own_ways, keep_only_sampled_rows, self.profile.speed_up)
            self.quantized_products = quantized_products(model)
        self.computes_all_logits = computes_all_logits(model)
        # Models that look at values cannot be traced.
        looks_at_values = hasattr(model, "reads_values") or shape.gathered_modules
        is_compiled = compile and self.profile.compiles_rows and not looks_at_values
        self._compiled = CompiledForward(model) if is_compiled else None
        self.packing = self.profile.packing(shape.layers, sizes, block_size, in_buckets=is_compiled)
        if self.profile.keeps_freed_buffers:
            keep_freed_buffers()
        try:
            self._layers = self._make_layers()
        except BaseException:
            self._adaptation.undo()
            raise

    def forward(self, batch: Batch, in_flight: mx.array | None) -> mx.array:
        """Dispatch one forward; returns the sampled rows' logits, (S, vocab), not yet waited for.

        in_flight: (S',) the last step's samples on the device, which the batch's in-flight tokens are taken from.
        """
        with self._clock.phase("forward"), self.on_device():
            self._copy(batch)
            logits, states = self._build(_token_ids(batch, in_flight), batch)
        with self._clock.phase("wait"):
            self._wait_for_the_last(batch, in_flight)
        # The pools are inputs of the logits and evaluated with them. Naming them here would keep a reference to each
        # until the forward is done, and the next write would copy the pool. Of the states no logits are made.
        mx.async_eval(logits, states)
        self._last_logits = logits
        return logits

    def take_ready_at(self) -> float | None:
        """When the last step's samples were there, if the forward after them waited for them before its dispatch."""
        ready_at, self._in_flight_ready_at = self._in_flight_ready_at, None
        return ready_at

    def on_device(self) -> AbstractContextManager[None]:
        """A context in which operations are built for the runner's device; not to be entered inside of itself."""
        return default_device.set_to(self._device)

    def settled_layers(self) -> Layers:
        """The layers, when no forward is under way: what is read from their pools has to be evaluated at once."""
        if self._last_logits is not None:
            mx.eval(self._last_logits)
        return self._layers

    def reset(self) -> None:
        """Make the pools anew, after a fault that may have left them undefined."""
        self._drop_layers()  # first, because two sets may not fit
        with suppress(Exception):  # of what is still in flight, whose requests have failed already
            mx.synchronize(self._device)
        self._layers = self._make_layers()

    def close(self) -> None:
        """Drop the pools and the model, whose modules get their own classes back; nothing is computed afterwards."""
        self._drop_layers()
        self._adaptation.undo()
        if self._compiled is not None:
            self._compiled.close()
        self._model = self._compiled = None

    def _copy(self, batch: Batch) -> None:
        """Copy between slots, while nothing is in flight that reads or writes pools.

        A pending read would also hold those that MLX writes, and a write after it would copy them.
        """
        pairs = [(layer, layer.part_of(batch).copies) for layer in self._layers.paged]
        if self._last_logits is not None and any(copies is not None for _, copies in pairs):
            mx.eval(self._last_logits)
        contents = [
            (layer, copies.targets, layer.read(copies.sources)) for layer, copies in pairs if copies is not None
        ]
        mx.eval([content for _, _, content in contents])
        for layer, targets, arrays in contents:
            layer.write(targets, *arrays)
        mx.eval([layer.written for layer, _, _ in contents if layer.written is not None])

    def _build(self, token_ids: mx.array, batch: Batch) -> tuple[mx.array, list[mx.array]]:
        """The graph of the sampled rows' logits, and that of states; the layers' pools become what it writes."""
        if batch.states is None:
            return self._build_logits(token_ids, batch), []
        for layer in self._layers.states:
            layer.load(batch.states)
        logits = self._build_logits(token_ids, batch)
        return logits, [array for layer in self._layers.states for array in layer.store(batch.states)]

    def _build_logits(self, token_ids: mx.array, batch: Batch) -> mx.array:
        are_rows_alike = all(layer.are_rows_alike for layer in self._layers.states)
        if self._compiled is not None and batch.in_buckets and are_rows_alike:
            return self._compiled(token_ids, batch, self._layers)
        return call_model(self._model, token_ids, batch, self._layers)[: len(batch.sampled)]

    def _wait_for_the_last(self, batch: Batch, in_flight: mx.array | None) -> None:
        """Wait for the forward before, when the next one is built and not yet dispatched.

        On a GPU the next forward writes pools in place that the one before still reads, and nothing but the tokens that
        it takes from there orders the two. Without them, as after a chunk within a prompt, the host waits; else it
        would also run ahead without end.
        """
        if in_flight is not None and self.profile.waits_before_dispatch:
            mx.eval(in_flight)
            self._in_flight_ready_at = time.perf_counter()
        elif self._last_logits is not None and (in_flight is None or not batch.has_in_flight):
            mx.eval(self._last_logits)
        self._last_logits = None

    def _make_layers(self) -> Layers:
        with self.on_device():
            leaves = [self._make_layer(shape) for shape in self._shape.layers]
        return Layers(leaves, self._shape.arrange(leaves))

    def _make_layer(self, shape: LayerShape) -> PagedLayer | StateLayer:
        if isinstance(shape, StateShape):
            return StateLayer(shape)
        has_window = sees_window(shape, self._sizes.window)
        num_blocks = self._sizes.num_window_blocks if has_window else self._sizes.num_blocks
        kind = GatheredLayer if shape.is_gathered else LatentLayer if shape.is_latent else PagedLayer
        layer = kind(shape, num_blocks, self._block_size)
        layer.reads_window_tables = has_window
        return layer

    def _drop_layers(self) -> None:
        self._layers = Layers((), ())
        self._last_logits = None


def _token_ids(batch: Batch, in_flight: mx.array | None) -> mx.array:
    """(T,) with those that are still on the device."""
    token_ids = batch.tokens.token_ids
    if in_flight is None or not batch.has_in_flight:
        return token_ids
    sources = batch.tokens.in_flight_sources
    return mx.where(sources < 0, token_ids, in_flight[sources])  # of -1 it reads the last one, for nobody
