"""Only sampled rows reach the LM head: a 2,048-token chunk must not compute 2,048 rows of logits.

mlx-lm's models call their inner `model` and put the head on top. The inner one drops the other rows; with any cache but
ours it does what it always did.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.core.forward.fast.adaptation import Adaptation, Form
from mlx_agent_llm.core.forward.layers.layer import batch_of
from mlx_agent_llm.errors import UnsupportedModelError


class _SampledRows(Form):
    """The form of an inner model."""

    def __call__(self, inputs: mx.array, cache: Any = None, *args: Any, **kwargs: Any) -> Any:
        hidden: Any = super().__call__(inputs, cache, *args, **kwargs)  # type: ignore[misc]
        batch = batch_of(cache)
        if batch is not None:
            rows = batch.tokens.sampled_rows
            return hidden[rows] if rows.size else hidden[:1]  # MLX's CUDA product of packed weights wants a row
        return hidden


def keep_only_sampled_rows(model: nn.Module, adaptation: Adaptation) -> None:
    """Let a model compute logits of sampled rows alone; UnsupportedModelError where its LM head cannot be found."""
    inner = getattr(model, "model", None) or getattr(model, "backbone", None)
    if not isinstance(inner, nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__module__}: it has no inner `model`, so its LM head cannot be found"
        )
    if not adaptation.keep(inner):
        adaptation.give(inner, _SampledRows)
