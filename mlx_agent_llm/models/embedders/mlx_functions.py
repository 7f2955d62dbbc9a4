"""An encoder's functions by MLX, over padded texts: for a GPU."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.models.embedders.functions import Heads
from mlx_agent_llm.models.embedders.text_batch import TextBatch

# Float16 holds it; a token of padding that sees no other one would be NaN by -inf.
_OUT_OF_REACH = -3e4
LAYERS_OF_A_PART, NUM_PARTS = 3, 2
"""A part of a forward is begun when the one before the last is computed."""
ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}


class PaddedLayout:
    """real: which keys (B, 1, 1, L) are no padding, None where none is. begun: what parts of a forward compute."""

    def __init__(self, real: mx.array | None) -> None:
        self.real = real
        self.num_layers = 0
        self.begun = deque[mx.array]()


class MLXFunctions:
    """Functions over (B, L, width)."""

    def lay_out(self, texts: TextBatch) -> PaddedLayout:
        """See Functions."""
        return PaddedLayout(texts.are_real[:, None, None] if texts.is_padded else None)

    def enter(self, embedded: mx.array, layout: PaddedLayout) -> mx.array:
        """See Functions."""
        return embedded

    def leave(self, values: mx.array, layout: PaddedLayout, only_first: bool = False) -> mx.array:
        """See Functions."""
        return values

    def end_layer(self, values: mx.array, layout: PaddedLayout) -> None:
        """See Functions; MLX takes memory for what it begins, and gives it back when that is computed."""
        layout.num_layers += 1
        if layout.num_layers % LAYERS_OF_A_PART == 0:
            mx.async_eval(values)
            layout.begun.append(values)
        if len(layout.begun) > NUM_PARTS:
            mx.eval(layout.begun.popleft())

    def first(self, values: mx.array, layout: PaddedLayout) -> mx.array:
        """See Functions."""
        return values[:, :1]

    def bias(self, bias: mx.array) -> mx.array:
        """See Functions."""
        return bias

    def linear(self, module: nn.Linear, x: mx.array) -> mx.array:
        """See Functions."""
        product: mx.array = module(x)
        return product

    def layer_norm(self, module: nn.LayerNorm, x: mx.array) -> mx.array:
        """See Functions."""
        normed: mx.array = module(x)
        return normed

    def rms_norm(self, weight: mx.array, x: mx.array, eps: float) -> mx.array:
        """See Functions."""
        return mx.fast.rms_norm(x, weight, eps)

    def activate(self, name: str, x: mx.array) -> mx.array:
        """See Functions."""
        return ACTIVATIONS[name](x)

    def attend(
        self,
        query: mx.array,
        key: mx.array,
        value: mx.array,
        layout: PaddedLayout,
        heads: Heads,
        bias: mx.array | None,
    ) -> mx.array:
        """See Functions; MLX's kernel takes half as long with a mask that is added as with one of booleans."""
        query, key, value = (
            x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)
            for x, count in ((query, heads.num_heads), (key, heads.num_kv_heads), (value, heads.num_kv_heads))
        )
        if heads.rotary_base is not None:
            query, key = (_rotate(x, heads.rotary_base) for x in (query, key))
        if heads.reach is not None:
            bias = _window(query.shape[2], heads.reach)
        mask = bias
        if layout.real is not None:
            mask = mx.where(layout.real, mx.array(0.0) if bias is None else bias, -math.inf)
        mask = None if mask is None else mask.astype(query.dtype)
        attended = mx.fast.scaled_dot_product_attention(query, key, value, scale=heads.scale, mask=mask)
        return attended.transpose(0, 2, 1, 3).flatten(2)


def _rotate(x: mx.array, base: float) -> mx.array:
    """Rotate (B, H, L, D) by the positions from 0 on, the first half of D with the second."""
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=0)


def _window(num_tokens: int, reach: int) -> mx.array:
    """What hides keys that are too far away, (1, 1, L, L)."""
    positions = mx.arange(num_tokens)
    is_near = mx.abs(positions[None] - positions[:, None]) <= reach
    return mx.where(is_near, 0.0, _OUT_OF_REACH)[None, None]
