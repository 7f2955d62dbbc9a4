"""The forward of decode rows as one compiled function, traced once for each of few shapes. Knows no requests.

Building the graph of a forward takes the host longer than a GPU takes to compute a small one. A compiled function
builds it once for each shape of its arguments; batches in buckets come in few shapes (batch_maker.bucket).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.batch.batch import Batch, BatchArrays, Packed, Shape, rows_batch
from mlx_agent_llm.core.forward.model_call import Layers, call_model

Pools = list[tuple[mx.array, ...]]


class CompiledForward:
    """Calls a model over layers whose pools or states go in as arguments and come out as results.

    Nothing else may hold a pool when the result is evaluated, or the writes copy it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trace = mx.compile(self._forward)
        # What a trace is made with: layers are no arguments that MLX takes, and of the shapes it keeps no names.
        self._layers = Layers((), ())
        self._shapes: BatchArrays[Shape] | None = None

    def __call__(self, token_ids: mx.array, batch: Batch, layers: Layers) -> mx.array:
        """(S, vocab) logits of a batch in buckets; the layers hold the pools that are written."""
        assert batch.packed is not None and batch.in_buckets
        integers, shapes = batch.packed
        pools: Pools = [layer.take_pools() for layer in layers.leaves]
        self._layers, self._shapes = layers, shapes
        try:
            logits, pools = self._trace(token_ids, integers, shapes, pools)
        finally:
            self._layers = Layers((), ())
        for layer, pool in zip(layers.leaves, pools, strict=True):
            layer.put_pools(*pool)
        return logits[: len(batch.sampled)]

    def close(self) -> None:
        """Drop the model and the traces, which hold its weights and, in a circle, this object."""
        del self._trace, self._model

    def _forward(self, token_ids: mx.array, integers: mx.array, shapes: Any, pools: Pools) -> tuple[mx.array, Pools]:
        """Traced once for each `shapes`, which MLX tells apart, and which are those of self._shapes."""
        assert self._shapes is not None
        batch = rows_batch(Packed(integers, self._shapes).unpack())
        for layer, pool in zip(self._layers.leaves, pools, strict=True):
            layer.put_pools(*pool)
        logits = call_model(self._model, token_ids, batch, self._layers)
        return logits, [layer.take_pools() for layer in self._layers.leaves]
