"""One call of a model over paged layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.layers.full import PagedLayer


def call_model(model: Any, token_ids: mx.array, batch: Batch, layers: Sequence[PagedLayer]) -> mx.array:
    """(S, vocab) logits of a batch's sampled rows, with (T,) token_ids in place of its own; layers are written."""
    for layer in layers:
        layer.batch = batch
    try:
        logits: mx.array = model(token_ids[:, None], cache=layers)[:, 0]
    finally:
        for layer in layers:
            layer.batch = None
    return logits
