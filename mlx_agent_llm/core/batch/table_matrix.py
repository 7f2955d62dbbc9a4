"""Block tables of many requests as one matrix, kept from step to step: most steps add a block to few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


class TableMatrix:
    """A row a table. A table only grows, or is replaced by another list."""

    def __init__(self, filler: int) -> None:
        self._filler = filler
        self._tables: list[list[int]] = []
        self._widths: list[int] = []
        self._matrix = np.zeros((0, 0), dtype=np.int32)

    def update(self, tables: Sequence[list[int]]) -> tuple[IntArray, IntArray, bool]:
        """The (R, W) matrix, its rows' widths (R,), and whether it is of the same tables as the last one.

        What is after a row's end is the filler. The matrix is written again by the next update.
        """
        widths = [len(table) for table in tables]
        is_same = len(tables) == len(self._tables) and all(
            new is old for new, old in zip(tables, self._tables, strict=True)
        )
        if not is_same or max(widths) > self._matrix.shape[1]:
            self._tables, self._widths = list(tables), [0] * len(tables)
            self._matrix = np.full((len(tables), max(widths) + max(widths) // 8 + 1), self._filler, dtype=np.int32)
        for row, (table, width, known) in enumerate(zip(tables, widths, self._widths, strict=True)):
            if width > known:
                self._matrix[row, known:width] = table[known:]
        self._widths = widths
        return self._matrix[:, : max(widths)], np.array(widths, dtype=np.int32), is_same
