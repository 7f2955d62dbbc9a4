"""What rows of a decode step share, level by level: all a system prompt, some of them a document after it too."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


class SharedLevel(NamedTuple):
    """G groups of at most M rows that have up to P blocks in common; no row is in two of them. All int32.

    Shapes are padded to what suits the caller: tables with any block, members with any row, groups with length 0.
    """

    block_tables: mx.array  # (G, P)
    seq_lens: mx.array  # (G,) tokens in them
    members: mx.array  # (G, M) rows
    places: mx.array  # (R,) where a row stands, group * M + member; -1 for one in no group
