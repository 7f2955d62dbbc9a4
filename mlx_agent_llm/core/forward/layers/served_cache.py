"""What the seam asks of every kind of layer, and the keys that a layer hands out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mlx.core as mx


class ServedCache(ABC):
    """A cache whose attention does not go to mlx-lm's function."""

    @abstractmethod
    def serve(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: mx.array | object | None,
        sinks: mx.array | None,
    ) -> mx.array:
        """The attention of (T, heads, 1, key_dim) queries; (T, heads, 1, value_dim).

        keys, values: what update_and_fetch returned, or what the model made of it; mask: what make_mask returned, or
        the model's own.
        """


class LentKeys(mx.array):
    """Keys that came from a cache: attention over them is the cache's, whichever layer asks for it."""

    owner: ServedCache


class AllKeys(LentKeys):
    """All keys of a cache, as far as a model looks at them before it attends over them: how many there are."""

    num_tokens: mx.array  # (T,) of each row

    @property
    def shape(self) -> tuple[int, int, mx.array, int]:  # type: ignore[override]
        """Rows, heads, tokens of each row, and width."""
        return (len(self.num_tokens), 1, self.num_tokens, 1)


def lend(keys: mx.array, owner: ServedCache) -> LentKeys:
    """The same keys, with their cache."""
    lent = LentKeys(keys)
    lent.owner = owner
    return lent


def lend_all(owner: ServedCache, num_tokens: mx.array) -> AllKeys:
    """All of a cache's keys, (T,) num_tokens of each row: a token for what its pool holds."""
    lent = AllKeys(0)
    lent.owner, lent.num_tokens = owner, num_tokens
    return lent
