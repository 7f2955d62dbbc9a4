"""Layers that see the tokens near them alone, as what is added to their scores."""

from __future__ import annotations

import mlx.core as mx

# Float16 holds it; a token of padding that sees no other one would be NaN by -inf.
_OUT_OF_REACH = -3e4


def bias_of_window(num_tokens: int, reach: int) -> mx.array:
    """What is added to scores, (1, 1, L, L), where a token sees so many others to each side."""
    positions = mx.arange(num_tokens)
    is_near = mx.abs(positions[None] - positions[:, None]) <= reach
    return mx.where(is_near, 0.0, _OUT_OF_REACH)[None, None]
