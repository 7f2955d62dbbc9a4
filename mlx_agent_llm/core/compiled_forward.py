"""The forward of decode rows as one compiled function, traced once for each of few shapes. Knows no requests.

Building the graph of a forward takes the host longer than a GPU takes to compute a small one. A compiled function
builds it once for each shape of its arguments; batches of rows alone come in few shapes (batch.bucket).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.attention import PagedLayer, call_model
from mlx_agent_llm.core.batch import Batch, RowSpan

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
        """(S, vocab) logits of a batch without prompts; the layers hold the pools that are written."""
        assert batch.rows is not None and not batch.prompts
        num_sampled = len(batch.sampled)
        sampled_rows = mx.pad(batch.sampled_rows, (0, batch.num_rows - num_sampled))
        arguments = (token_ids, batch.positions, batch.slot_mapping, sampled_rows, batch.rows)
        pools = [layer.take_pools() for layer in layers]
        self._layers = layers
        try:
            logits, pools = self._trace(*arguments, pools)
        finally:
            self._layers = ()
        for layer, pool in zip(layers, pools, strict=True):
            layer.put_pools(*pool)
        return logits[:num_sampled]

    def _forward(
        self,
        token_ids: mx.array,
        positions: mx.array,
        slot_mapping: mx.array,
        sampled_rows: mx.array,
        rows: Sequence[Any],
        pools: Pools,
    ) -> tuple[mx.array, Pools]:
        batch = _rows_batch(token_ids, positions, slot_mapping, sampled_rows, RowSpan(*rows))
        for layer, pool in zip(self._layers, pools, strict=True):
            layer.put_pools(*pool)
        logits = call_model(self._model, token_ids, batch, self._layers)
        return logits, [layer.take_pools() for layer in self._layers]


def _rows_batch(
    token_ids: mx.array, positions: mx.array, slot_mapping: mx.array, sampled_rows: mx.array, rows: RowSpan
) -> Batch:
    """The part of a batch that a forward reads."""
    none = mx.zeros((0,), dtype=mx.int32)
    return Batch(
        token_ids=token_ids,
        in_flight_rows=none,
        in_flight_sources=none,
        positions=positions,
        slot_mapping=slot_mapping,
        rows=rows,
        prompts=(),
        sampled_rows=sampled_rows,
        sampled=(),
        num_tokens=token_ids.shape[0],
        num_rows=token_ids.shape[0],
        num_padding=0,
        num_prompt_tokens=0,
        copies=None,
    )
