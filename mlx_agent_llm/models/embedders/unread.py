"""An embedding or reranking model whose weights are not read yet, and what may refuse it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.config import DType
from mlx_agent_llm.models.placement import weight_bytes, weight_dtype


class UnreadTextModel(NamedTuple):
    """An encoder with what follows it, or a causal model.

    num_bytes: what the weights will take; dtype: what they become, None where each stays as it was stored. max_tokens:
    of the longest text.
    """

    model: nn.Module
    vocab_size: int
    max_tokens: int
    num_bytes: int
    dtype: mx.Dtype | None


Preflight = Callable[[UnreadTextModel], None]
"""Raises where a model must not be read; called once, when all but the weights is known."""


def unread(model: nn.Module, vocab_size: int, max_tokens: int, device: mx.Device, dtype: DType) -> UnreadTextModel:
    """A model as place_weights will leave it."""
    num_bytes = weight_bytes(model, device, dtype)
    return UnreadTextModel(model, vocab_size, max_tokens, num_bytes, weight_dtype(device, dtype))
