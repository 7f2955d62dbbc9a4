"""Which rows of a batch should read common blocks together. Knows block tables and what reading costs, no requests.

Rows whose tables begin alike form a tree: all share a system prompt, some share a document after it as well. A level
is a set of groups of that tree, no row in two of them; attention reads a group's blocks once for all of its rows, level
by level, and then what each row has of its own. At most two levels are used: the root alone, the groups at one depth of
the tree alone, or these on top of the root, whichever costs least, counted in blocks that are read:

- a row costs the blocks that it reads by itself;
- a level costs its launches, as many blocks as could be read meanwhile, and its groups' blocks some times over, because
  they are copied side by side first; all groups count as wide as the widest, because they are computed in one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_agent_llm.core.batch.table_matrix import IntArray

_MAX_DEPTH = 4
_FIRST_COLUMNS = 64


class SharingCosts(NamedTuple):
    """What a level costs, in blocks that are read."""

    launches: float  # of a level; infinite where rows are read alone
    copies: float  # of a block that a group reads, which a row reads for 1

    def num_worth_sharing(self, num_rows: int) -> int | None:
        """The fewest blocks that so many rows should read together; None when that never pays."""
        saved = num_rows - self.copies
        return int(self.launches / saved) + 1 if saved > 0 and math.isfinite(self.launches) else None

    def num_worth_two_levels(self, num_rows: int) -> tuple[int, int] | None:
        """The fewest blocks that so many rows, and after these each half of them, should read as levels of their own.

        None when that never pays.
        """
        saved = num_rows - 2 * self.copies
        if saved <= 0 or not math.isfinite(self.launches):
            return None
        return int(self.launches / self.copies) + 1, int(self.launches / saved) + 1


class Group(NamedTuple):
    """Rows, two at least, whose tables agree from the beginning to `end`, and of which they read from `begin` on."""

    rows: tuple[int, ...]
    begin: int
    end: int


Levels = tuple[tuple[Group, ...], ...]


def find_levels(tables: IntArray, num_shareable: IntArray, costs: SharingCosts) -> Levels:
    """The levels that cost least for (R, W) tables, of which a row may share its first num_shareable blocks, (R,)."""
    depths = [list[Group]() for _ in range(_MAX_DEPTH)]
    for depth, group in _tree(tables, num_shareable):
        depths[depth].append(group)
    return min(_candidates(depths), key=lambda levels: _cost(levels, costs), default=())


def _tree(tables: IntArray, num_shareable: IntArray) -> Iterator[tuple[int, Group]]:
    """Every group that shares something which no larger one does, with its depth."""
    waiting = [(0, 0, np.arange(len(tables)))]
    while waiting:
        depth, begin, rows = waiting.pop()
        if len(rows) < 2 or depth == _MAX_DEPTH:
            continue
        end = _end_of_common(tables, rows, begin, int(num_shareable[rows].min()))
        if end > begin:
            yield depth, Group(tuple(rows.tolist()), begin, end)
        rest = rows[num_shareable[rows] > end]
        nexts = tables[rest, end] if len(rest) else rest
        blocks, counts = np.unique(nexts, return_counts=True)
        for block in blocks[counts > 1]:
            if len(same := rest[nexts == block]) < len(rows):
                waiting.append((depth + (end > begin or depth == 0), end, same))


def _end_of_common(tables: IntArray, rows: npt.NDArray[np.intp], begin: int, limit: int) -> int:
    """The first column from `begin` on in which not all of the rows agree, or the limit.

    Columns are read in growing pieces: most rows differ soon, and long tables take milliseconds.
    """
    num_columns = _FIRST_COLUMNS
    while begin < limit:
        piece = tables[rows, begin : min(begin + num_columns, limit)]
        differs = (piece != piece[0]).any(axis=0)
        if differs.any():
            return begin + int(differs.argmax())
        begin, num_columns = begin + len(differs), 2 * num_columns
    return limit


def _candidates(depths: Sequence[Sequence[Group]]) -> Iterator[Levels]:
    yield ()
    root = tuple(depths[0])
    if root:
        yield (root,)
    for groups in depths[1:]:
        if groups:
            yield (tuple(group._replace(begin=0) for group in groups),)
        if groups and root:
            yield (root, tuple(group._replace(begin=root[0].end) for group in groups))


def _cost(levels: Levels, costs: SharingCosts) -> float:
    """More than no sharing where it is positive."""
    total = 0.0
    for groups in levels:
        widest = max(group.end - group.begin for group in groups)
        saved = sum(len(group.rows) * (group.end - group.begin) for group in groups)
        total += costs.launches + costs.copies * len(groups) * widest - saved
    return total
