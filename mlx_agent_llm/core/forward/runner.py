"""From a batch to the logits of its sampled rows, through the model and its paged pools."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import backend
from mlx_agent_llm.core.batch.batch import Batch, SlotCopies
from mlx_agent_llm.core.batch.batch_maker import Packing
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.forward.compiled_forward import CompiledForward
from mlx_agent_llm.core.forward.fast.cpu_modules import speed_up_modules
from mlx_agent_llm.core.forward.fast.fused_blocks import fuse_blocks
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.model_call import call_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.core.step_clock import StepClock
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.process.allocator import keep_freed_buffers

# The most tokens of a chunk that attend as rows of their own. On CUDA 16 chunks of 30 tokens on 4,096 take 11 ms so and
# 59 ms one by one, and MLX's attention takes 50 ms more where it meets new lengths (docs/gpu.md); on a CPU it is no
# faster. Metal's is a guess on the safe side.
_MAX_ROW_CHUNK = {"cuda": 512, "metal": 16, "reference": 1}
# What the launches of a shared level cost, in bytes that a layer could have read meanwhile, and how often a group's
# blocks are moved. CUDA's: 12 us at 4 TB/s, and parts that are written and read again. A CPU gains from about 1 MB on
# (2 to 16 rows of a 135M model's layers). Metal's are guesses.
_LEVEL_BYTES = {"cuda": 50_000_000, "metal": 10_000_000, "reference": 1_000_000}
_LEVEL_COPIES = {"cuda": 1.5, "metal": 3.0, "reference": 1.0}
# What is compiled before the first request. On CUDA a product has kernels for up to 8 rows, for more, and for so many
# that they fill the GPU; one row of so many tokens is read in parts, many that share them read them together.
_WARM_ROWS = {"cuda": (1, 16, 64), "metal": (1, 16), "reference": (1,)}
_WARM_TOKENS = {"cuda": 2048, "metal": 512, "reference": 0}


class ModelRunner:
    """Owns the pools and runs the model over packed batches; every token is a row of its own."""

    def __init__(
        self,
        model: nn.Module,
        shapes: list[KVShape],
        num_blocks: int,
        block_size: int,
        clock: StepClock,
        *,
        compile: bool,
    ) -> None:
        _keep_only_sampled_rows(model)
        self._model: Any = model
        self._clock = clock
        self._is_cpu = mx.default_device() == mx.Device(mx.cpu)
        if self._is_cpu:
            keep_freed_buffers()
            speed_up_modules(model)
        else:
            fuse_blocks(model)
        # A CPU builds the graph while it computes; models that look at values cannot be traced.
        self._compiled = (
            None if self._is_cpu or not compile or hasattr(model, "reads_values") else CompiledForward(model)
        )
        self.packing = Packing(
            num_blocks,
            # A product of one row takes longer than one of two: 38 against 29 ms for a 135M model (MKL, float32).
            min_tokens=2 if self._is_cpu else 1,
            in_buckets=self._compiled is not None,
            max_row_chunk=_MAX_ROW_CHUNK[backend()],
            costs=_sharing_costs(shapes, block_size),
            warm_rows=_WARM_ROWS[backend()],
            warm_blocks=-(-_WARM_TOKENS[backend()] // block_size),
        )
        self._last_logits: mx.array | None = None
        self._in_flight_ready_at: float | None = None
        self._shapes, self._num_blocks, self._block_size = shapes, num_blocks, block_size
        self._layers = self._make_layers()

    def forward(self, batch: Batch, in_flight: mx.array | None) -> mx.array:
        """Dispatch one forward; returns the sampled rows' logits, (S, vocab), not yet waited for.

        in_flight: (S',) the last step's samples on the device, which the batch's in-flight tokens are taken from.
        """
        with self._clock.phase("forward"):
            token_ids = batch.tokens.token_ids
            if in_flight is not None and batch.has_in_flight:
                sources = batch.tokens.in_flight_sources
                # Of -1 it reads the last one, for nobody.
                token_ids = mx.where(sources < 0, token_ids, in_flight[sources])
            if batch.copies is not None:
                self._copy(batch.copies)
            logits = self._build(token_ids, batch)
        with self._clock.phase("wait"):
            self._wait_for_the_last(in_flight)
        # The pools are inputs of the logits and evaluated with them. Naming them here would keep a reference to each
        # until the forward is done, and the next write would copy the pool.
        mx.async_eval(logits)
        self._last_logits = logits
        return logits

    def _build(self, token_ids: mx.array, batch: Batch) -> mx.array:
        """The graph of the sampled rows' logits; the layers' pools become those that it writes."""
        if self._compiled is not None and batch.in_buckets:
            return self._compiled(token_ids, batch, self._layers)
        return call_model(self._model, token_ids, batch, self._layers)

    def take_ready_at(self) -> float | None:
        """When the last step's samples were there, if the forward after them waited for them before its dispatch."""
        ready_at, self._in_flight_ready_at = self._in_flight_ready_at, None
        return ready_at

    def reset(self) -> None:
        """Make the pools anew, after a fault that may have left them undefined."""
        self.close()  # first, because two sets may not fit
        with suppress(Exception):  # of what is still in flight, whose requests have failed already
            mx.synchronize()
        self._layers = self._make_layers()

    def close(self) -> None:
        """Drop the pools."""
        self._layers = []
        self._last_logits = None

    def _copy(self, copies: SlotCopies) -> None:
        """Waits for the last forward: a pending read holds the pools, and the writes after it would copy them."""
        contents = [layer.read(copies.sources) for layer in self._layers]
        mx.eval(contents)
        for layer, (keys, values) in zip(self._layers, contents, strict=True):
            layer.write(copies.targets, keys, values)

    def _wait_for_the_last(self, in_flight: mx.array | None) -> None:
        """Wait for the forward before, when the next one is built and not yet dispatched.

        A task that is pending on the CPU holds the buffers of its inputs, so the writes of a forward dispatched after
        it would copy the pools instead of happening in place (measured: 336 ms a step instead of 115). On any device a
        chunk of a prompt, after which nothing is sampled, would let the host run ahead without end.
        """
        if in_flight is None and self._last_logits is not None:
            mx.eval(self._last_logits)
        elif in_flight is not None and self._is_cpu:
            mx.eval(in_flight)
            self._in_flight_ready_at = time.perf_counter()
        self._last_logits = None

    def _make_layers(self) -> list[PagedLayer]:
        return [PagedLayer(shape, self._num_blocks, self._block_size) for shape in self._shapes]


def _sharing_costs(shapes: list[KVShape], block_size: int) -> SharingCosts:
    """What a level costs in blocks of a mean layer."""
    block_bytes = block_size * sum(shape.num_bytes for shape in shapes) / len(shapes)
    return SharingCosts(_LEVEL_BYTES[backend()] / block_bytes, _LEVEL_COPIES[backend()])


def _keep_only_sampled_rows(model: nn.Module) -> None:
    """Let only sampled rows reach the LM head: a 2,048-token chunk must not compute 2,048 rows of logits.

    mlx-lm's models call their inner `model` and put the head on top. The inner one's class gets a subclass whose call
    drops the other rows; with any cache but ours it does what it always did.
    """
    inner = getattr(model, "model", None)
    if not isinstance(inner, nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__module__}: it has no inner `model`, so its LM head cannot be found"
        )
    if issubclass(type(inner), _SampledRowsOnly):
        return
    inner.__class__ = type(f"SampledRows{type(inner).__name__}", (_SampledRowsOnly, type(inner)), {})


class _SampledRowsOnly:
    """The mixin of such a subclass."""

    def __call__(self, inputs: mx.array, cache: Any = None, *args: Any, **kwargs: Any) -> Any:
        hidden: Any = super().__call__(inputs, cache, *args, **kwargs)  # type: ignore[misc]
        if cache and isinstance(cache[0], PagedLayer):
            return hidden[cache[0].current_batch.tokens.sampled_rows]
        return hidden
