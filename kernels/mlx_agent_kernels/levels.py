"""What rows of a decode step share, level by level: all a system prompt, some of them a document after it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import mlx.core as mx

Array = TypeVar("Array")  # mx.array where it is computed with


class SharedLevel(NamedTuple, Generic[Array]):
    """G groups of at most M rows that have up to P blocks in common; no row is in two of them. All int32.

    Shapes are padded to what suits the caller: tables with any block, members with any row, groups with length 0.
    """

    block_tables: Array  # (G, P)
    seq_lens: Array  # (G,) tokens in them
    members: Array  # (G, M) rows
    places: Array  # (R,) where a row stands, group * M + member; -1 for one in no group


def first_seen(levels: Sequence[SharedLevel[mx.array]], seq_lens: mx.array, window: int) -> list[mx.array]:
    """(G, M) for each level, the first of its tokens that a member sees within its last `window` tokens.

    It is the group's length where it sees none, and where nobody stands. seq_lens: (R,) tokens after what is shared.
    """
    firsts, num_after = list[mx.array](), seq_lens
    for _, lengths, members, places in reversed(levels):
        num_own = mx.where(places < 0, 0, lengths[mx.maximum(places, 0) // members.shape[1]])
        first = mx.maximum(num_after + num_own - window, 0)
        stands_here = places[members] == mx.arange(members.size).reshape(members.shape)
        firsts.append(mx.minimum(mx.where(stands_here, first[members], lengths[:, None]), lengths[:, None]))
        num_after = num_after + num_own
    return firsts[::-1]
