"""One call of a model over layers of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.layers.state import StateLayer


class Layers(NamedTuple):
    """The layers of a model, one for each leaf of its cache, and how it takes them."""

    leaves: Sequence[PagedLayer | StateLayer]
    cache: Sequence[Any]

    @property
    def paged(self) -> list[PagedLayer]:
        """Those that keep keys and values."""
        return [layer for layer in self.leaves if isinstance(layer, PagedLayer)]

    @property
    def states(self) -> list[StateLayer]:
        """Those that keep states."""
        return [layer for layer in self.leaves if isinstance(layer, StateLayer)]


def call_model(model: Any, token_ids: mx.array, batch: Batch, layers: Layers) -> mx.array:
    """(S, vocab) logits of a batch's sampled rows, with (T,) token_ids in place of its own; layers are written."""
    for layer in layers.leaves:
        layer.batch = layer.part_of(batch)
    try:
        logits: mx.array = model(token_ids[:, None], cache=layers.cache)[:, 0]
    finally:
        for layer in layers.leaves:
            layer.batch = None
    return logits
