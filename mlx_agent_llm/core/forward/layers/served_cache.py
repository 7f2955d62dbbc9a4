"""What the seam asks of every kind of layer."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mlx.core as mx


class ServedCache(ABC):
    """A cache whose attention does not go to mlx-lm's function."""

    @abstractmethod
    def serve(self, queries: mx.array, values: mx.array, scale: float, sinks: mx.array | None) -> mx.array:
        """The attention of (T, heads, 1, key_dim) queries; (T, heads, 1, value_dim).

        values: what update_and_fetch returned of them.
        """
