"""What every kind of layer has: the batch of the forward that is being built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_lm.models.cache import CacheList

from mlx_agent_llm.core.batch.batch import Batch


class Layer:
    """One leaf of what a model takes as its cache; `batch` is set for the time of one forward."""

    batch: Batch | None = None

    def part_of(self, batch: Batch) -> Batch:
        """A batch as this layer reads it."""
        return batch

    @property
    def current_batch(self) -> Batch:
        """The batch of the forward that is being built."""
        assert self.batch is not None, "a layer was used outside of a forward"
        return self.batch


def leaves_of(entry: Any) -> Sequence[Any]:
    """The leaves of one entry of a model's cache: those of a CacheList, or the entry itself."""
    leaves: Sequence[Any] = entry.caches if isinstance(entry, CacheList) else (entry,)
    return leaves


def batch_of(cache: Any) -> Batch | None:
    """The batch of the forward that a model makes with this cache; None for a cache that is not ours."""
    leaf = cache
    while isinstance(leaf, list | tuple | CacheList):
        if isinstance(leaf, list | tuple) and not leaf:
            return None
        leaf = leaf[0]
    return leaf.batch if isinstance(leaf, Layer) else None
