"""What one layer keeps of a token, and what that takes."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


class KVShape(NamedTuple):
    """What one attention layer stores for a token."""

    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: mx.Dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.size
