"""The tables of layers that see a window: of each row from the first block on that it sees."""

from __future__ import annotations

import numpy as np

from mlx_agent_llm.core.batch.batch import RowSpan, WindowArrays
from mlx_agent_llm.core.batch.layout import Layout
from mlx_agent_llm.core.batch.row_tables import extended, own_tables, power_of_two
from mlx_agent_llm.core.batch.table_matrix import IntArray, TableMatrix
from mlx_agent_llm.core.schedule.schedule import Chunk


class WindowTables:
    """Remembers the tables of the last batch, which most of the time are those of the next one."""

    def __init__(self, window: int, block_size: int, padding_block: int) -> None:
        self._window = window
        self._block_size = block_size
        self._padding_block = padding_block
        self._tables = TableMatrix(padding_block)

    def arrays(self, layout: Layout) -> WindowArrays[IntArray]:
        """Where the tokens of a layout have their keys and values in these layers."""
        tables, widths, _ = self._tables.update([self._table(chunk) for chunk in layout.chunks])
        return WindowArrays(
            slot_mapping=layout.slot_mapping(tables, self._block_size, self._padding_block),
            rows=self._rows(layout, tables, widths) if layout.num_rows else None,
            prompt_tables=layout.prompt_tables(tables, widths),
        )

    def _table(self, chunk: Chunk) -> list[int]:
        """A request's table; of one that is nobody's, as long a one of nobody's block."""
        kv = chunk.request.kv
        return kv.window_table or [self._padding_block] * len(kv.block_table)

    def _rows(self, layout: Layout, tables: IntArray, widths: IntArray) -> RowSpan[IntArray]:
        num_real = layout.num_rows - layout.num_idle
        positions, owners = layout.positions[:num_real], layout.owners[:num_real]
        begins = np.maximum(positions + 1 - self._window, 0) // self._block_size
        width_of = power_of_two if layout.in_buckets else int
        return RowSpan(
            levels=(),
            block_tables=own_tables(
                tables[owners], widths[owners], begins, width_of, layout.num_idle, self._padding_block
            ),
            seq_lens=extended(positions + 1 - begins * self._block_size, layout.num_idle, 1),
        )
