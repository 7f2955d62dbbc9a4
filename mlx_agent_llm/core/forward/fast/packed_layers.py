"""Quantized layers whose rows are multiplied together: a token that is a row of its own is no product of its own."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_agent_kernels import project
from mlx_agent_llm.core.forward.fast.adaptation import Form
from mlx_agent_llm.core.forward.fast.projections import quantized_weight


class PackedLinear(Form):
    """The form of a quantized linear layer."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        """(..., width) inputs -> (..., outputs); (T, 1, width) as mlx_agent_kernels.project does."""
        if not _is_rows(x):
            output: mx.array = super().__call__(x)  # type: ignore[misc]
            return output
        return project(x, quantized_weight(self, self), bias=self.get("bias"))


class PackedEmbedding(Form):
    """The form of a quantized embedding, which may be the LM head too."""

    def as_linear(self: Any, x: mx.array) -> mx.array:
        """(..., width) hidden states -> (..., vocabulary) logits; (T, 1, width) as mlx_agent_kernels.project does."""
        if not _is_rows(x):
            output: mx.array = super().as_linear(x)  # type: ignore[misc]
            return output
        return project(x, quantized_weight(self, self))


def _is_rows(x: mx.array) -> bool:
    return x.ndim == 3 and x.shape[1] == 1
