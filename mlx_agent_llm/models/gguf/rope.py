"""Rotary embedding with a factor a frequency, as GGUF files of Llama 3 carry it (rope_freqs.weight)."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class FactoredRoPE(nn.Module):
    """RoPE whose i-th frequency is divided by factors[i]; Llama 3.x stretches its context this way.

    factors: (dims / 2,). Item i rotates with item i + dims / 2.
    """

    def __init__(self, dims: int, base: float, factors: mx.array) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dims, self.traditional = dims, False
        # The leading underscore keeps the array out of the module's parameters.
        self._freqs = base ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims) * factors.astype(mx.float32)

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate x (..., L, D) from position `offset` on, one offset or one a batch row."""
        return mx.fast.rope(
            x, self.dims, traditional=self.traditional, base=None, scale=1.0, offset=offset, freqs=self._freqs
        )
