"""What rows of a decode step share, level by level: all a system prompt, some of them a document after it too."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

Array = TypeVar("Array")  # mx.array where it is computed with


class SharedLevel(NamedTuple, Generic[Array]):
    """G groups of at most M rows that have up to P blocks in common; no row is in two of them. All int32.

    Shapes are padded to what suits the caller: tables with any block, members with any row, groups with length 0.
    """

    block_tables: Array  # (G, P)
    seq_lens: Array  # (G,) tokens in them
    members: Array  # (G, M) rows
    places: Array  # (R,) where a row stands, group * M + member; -1 for one in no group
