"""The forward of decode rows as one compiled function, traced once for each of few shapes. Knows no requests.

Building the graph of a forward takes the host longer than a GPU takes to compute a small one. A compiled function
builds it once for each shape of its arguments; batches in buckets come in few shapes (batch_maker.bucket).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.batch.batch import Batch, Packed, Shapes, rows_batch, split_arrays
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.model_call import call_model

Pools = list[tuple[mx.array, mx.array]]


class CompiledForward:
    """Calls a model over paged layers, whose pools go in as arguments and come out as results.

    Nothing else may hold a pool when the result is evaluated, or the writes copy it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: Sequence[PagedLayer] = ()
        self._trace = mx.compile(self._forward)

    def __call__(self, token_ids: mx.array, batch: Batch, layers: Sequence[PagedLayer]) -> mx.array:
        """(S, vocab) logits of a batch in buckets; the layers hold the pools that are written."""
        assert batch.packed is not None and batch.in_buckets
        pools = [layer.take_pools() for layer in layers]
        self._layers = layers
        try:
            logits, pools = self._trace(token_ids, batch.packed.integers, batch.packed.shapes, pools)
        finally:
            self._layers = ()
        for layer, pool in zip(layers, pools, strict=True):
            layer.put_pools(*pool)
        return logits[: len(batch.sampled)]

    def close(self) -> None:
        """Let go of the traced function, or the two would keep each other, and with them the model."""
        del self._trace

    def _forward(self, token_ids: mx.array, integers: mx.array, shapes: Shapes, pools: Pools) -> tuple[mx.array, Pools]:
        tokens, rows, _ = split_arrays(Packed(integers, shapes).unpack(), 0)
        assert rows is not None
        for layer, pool in zip(self._layers, pools, strict=True):
            layer.put_pools(*pool)
        logits = call_model(self._model, token_ids, rows_batch(tokens, rows), self._layers)
        return logits, [layer.take_pools() for layer in self._layers]
