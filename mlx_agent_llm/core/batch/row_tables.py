"""The tables of rows that attend on their own, as arrays of the sizes that a device likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlx_agent_llm.core.batch.table_matrix import IntArray

Rounding = Callable[[int], int]  # how large an array's dimension is made


def own_tables(
    tables: IntArray, widths: IntArray, begins: IntArray, width_of: Rounding, num_idle: int, filler: int
) -> IntArray:
    """(R + idle, W') what is after `begins` in (R, W) tables."""
    longest = int((widths - begins).max())
    own = np.full((len(tables) + num_idle, width_of(longest)), filler, dtype=np.int32)
    if (begins == begins[0]).all():
        own[: len(tables), :longest] = tables[:, begins[0] : begins[0] + longest]
        return own
    columns = begins[:, None] + np.arange(longest, dtype=np.int32)
    found = np.take_along_axis(tables, np.minimum(columns, tables.shape[1] - 1), axis=1)
    own[: len(tables), :longest] = np.where(columns < widths[:, None], found, np.int32(filler))
    return own


def extended(values: Sequence[int] | IntArray, count: int, filler: int) -> IntArray:
    """Values with so many fillers after them."""
    array = np.full(len(values) + count, filler, dtype=np.int32)
    array[: len(values)] = values
    return array


def power_of_two(width: int) -> int:
    """The next one, 16 at least: what a table is wider than its rows need costs a transfer and no reading."""
    return max(1 << (width - 1).bit_length(), 16)
