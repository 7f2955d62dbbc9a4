"""Block tables of many requests as one matrix, kept from step to step: most steps add a block to few of them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


class TableMatrix:
    """A row a table. A table only grows, or is replaced by another list; a block is converted once.

    A list of 6,250 blocks takes 0.1 ms to convert, so rows that stay while others join or leave are moved instead.
    """

    def __init__(self, filler: int) -> None:
        self._filler = filler
        self._tables: list[list[int]] = []
        self._widths: list[int] = []
        self._matrix = np.empty((1, 0), dtype=np.int32)
        self._spare = np.empty((1, 0), dtype=np.int32)  # of the same shape: where rows are moved to

    def update(self, tables: Sequence[list[int]]) -> tuple[IntArray, IntArray, bool]:
        """The (R, W) matrix, its rows' widths (R,), and whether it is of the same tables as the last one.

        What is after a row's end is the filler. The matrix is written again by the next updates.
        """
        widths = [len(table) for table in tables]
        is_same = len(tables) == len(self._tables) and all(map(is_, tables, self._tables))
        self._resize(len(tables), max(widths))
        if not is_same:
            self._move_rows(tables)
        if widths != self._widths:
            self._extend_rows(tables, widths)
        return self._matrix[: len(tables), : max(widths)], np.array(widths, dtype=np.int32), is_same

    def _extend_rows(self, tables: Sequence[list[int]], widths: list[int]) -> None:
        """Write the blocks that were added."""
        for row, (table, width, known) in enumerate(zip(tables, widths, self._widths, strict=True)):
            if width > known:
                self._matrix[row, known:width] = table[known:]
        self._widths = widths

    def _resize(self, num_rows: int, width: int) -> None:
        """Make room, and some more; rows that are much longer than they need would be moved as they are."""
        height, capacity = self._matrix.shape
        if num_rows <= height and width <= capacity <= 4 * width:
            return
        if num_rows > height:
            num_rows += num_rows // 8
        kept = min(capacity, width)
        resized = np.full((max(num_rows, height), width + width // 8 + 1), self._filler, dtype=np.int32)
        resized[:height, :kept] = self._matrix[:, :kept]
        self._matrix, self._spare = resized, np.empty_like(resized)

    def _move_rows(self, tables: Sequence[list[int]]) -> None:
        """Put the rows of tables that were there before where these are now, and empty those of the others."""
        row_of = {id(table): row for row, table in enumerate(self._tables)}
        sources = [row_of.get(id(table), -1) for table in tables]
        if any(0 <= source != row for row, source in enumerate(sources)):
            np.take(self._matrix, sources, axis=0, out=self._spare[: len(tables)], mode="clip")  # or it copies twice
            self._matrix, self._spare = self._spare, self._matrix
        self._matrix[[row for row, source in enumerate(sources) if source < 0]] = self._filler
        self._tables, known = list(tables), self._widths
        self._widths = [known[source] if source >= 0 else 0 for source in sources]
