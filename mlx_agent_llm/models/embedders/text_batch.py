"""The texts of one forward, as arrays."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


class TextBatch(NamedTuple):
    """Texts or pairs of texts as token ids (B, L); behind a row's length are any valid ids, which no real token sees.

    num_first: how many tokens of each row are of the first type, those of a pair's first text or all of a single one.
    is_padded: whether a row is shorter than others.
    """

    tokens: mx.array  # (B, L)
    lengths: mx.array  # (B,)
    num_first: mx.array  # (B,)
    is_padded: bool = True

    @property
    def are_real(self) -> mx.array:
        """(B, L) which tokens are no padding."""
        return mx.arange(self.tokens.shape[1])[None] < self.lengths[:, None]

    @property
    def are_first(self) -> mx.array:
        """(B, L) which tokens are of the first type."""
        return mx.arange(self.tokens.shape[1])[None] < self.num_first[:, None]
