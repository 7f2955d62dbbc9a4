"""Quantized layers whose rows are multiplied together: a token that is a row of its own is no product of its own."""

from __future__ import annotations

from collections.abc import Callable
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


class PackedMultiLinear(Form):
    """The form of quantized products of a head each.

    MLX's CUDA product multiplies every head by the first one's weights where they are broadcast over tokens
    (mlx/backend/cuda/quantized/qmm/qmv.cu), so the tokens of a head go into one product.
    """

    def __call__(self: Any, x: mx.array, transpose: bool = True) -> mx.array:
        """(T, heads, 1, width) inputs -> (T, heads, 1, outputs); any others as the layer does."""
        call: Callable[..., mx.array] = super().__call__  # type: ignore[misc]
        if x.ndim != 4 or x.shape[2] != 1:
            return call(x, transpose)
        return call(mx.contiguous(x.swapaxes(0, 2)), transpose).swapaxes(0, 2)


def _is_rows(x: mx.array) -> bool:
    return x.ndim == 3 and x.shape[1] == 1
