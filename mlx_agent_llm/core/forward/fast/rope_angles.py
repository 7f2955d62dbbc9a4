"""RoPE of packed tokens by angles that are computed once for all layers of a forward."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.forward.fast.adaptation import Form


class SharedAngles(Form):
    """The form of MLX's RoPE: x * cos + x turned by a quarter * sin, for float32 tokens that are rows of their own.

    Everything else is computed as before.
    """

    _angles: RoPEAngles

    def __call__(self: Any, x: mx.array, offset: Any = 0) -> mx.array:
        """(T, heads, 1, dims) of tokens at (T,) offsets, or whatever else MLX's own takes; same shape."""
        if not _is_packed(x, offset) or x.shape[-1] != self.dims:
            rotated: mx.array = super().__call__(x, offset)  # type: ignore[misc]
            return rotated
        cosines, sines = self._angles.of(offset)
        turned: mx.array = x * cosines + (x @ self._angles.quarter_turn) * sines
        return turned


class RoPEAngles:
    """The cosines and sines of a forward's positions, the same for all layers, queries and keys."""

    def __init__(self, dims: int, traditional: bool, base: float, scale: float) -> None:
        half = dims // 2
        self._scale = scale
        self._frequencies = mx.exp(mx.arange(0, -half, -1, dtype=mx.float32) * (math.log(base) / half))
        # The dimensions first[i] and second[i] turn together by the i-th angle.
        first = mx.arange(half) * 2 if traditional else mx.arange(half)
        second = first + (1 if traditional else half)
        self._angle_of = mx.zeros((dims,), dtype=mx.int32)
        self._angle_of[first], self._angle_of[second] = mx.arange(half), mx.arange(half)
        self.quarter_turn = mx.zeros((dims, dims))
        self.quarter_turn[second, first] = -1.0
        self.quarter_turn[first, second] = 1.0
        mx.eval(self._frequencies, self._angle_of, self.quarter_turn)
        self._last: tuple[mx.array, mx.array, mx.array] | None = None  # positions, cosines, sines

    def of(self, positions: mx.array) -> tuple[mx.array, mx.array]:
        """(T,) positions -> the cosines and the sines, (T, 1, 1, dims) each."""
        last = self._last  # read once: engines of several threads may serve one model
        if last is None or last[0] is not positions:
            angles = (positions.astype(mx.float32) * self._scale)[:, None] * self._frequencies
            angles = angles[:, self._angle_of][:, None, None]
            last = self._last = (positions, mx.cos(angles), mx.sin(angles))
        return last[1], last[2]


def _is_packed(x: mx.array, offset: Any) -> bool:
    return isinstance(offset, mx.array) and offset.ndim == 1 and x.shape[2] == 1 and x.dtype == mx.float32
