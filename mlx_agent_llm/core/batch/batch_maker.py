"""From a schedule to the arrays of its forward, in the shapes that the device likes. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_agent_kernels import SharedLevel
from mlx_agent_llm.core.batch.batch import Batch, BatchArrays, RowSpan, SlotCopies, TokenArrays, pack, window_batch
from mlx_agent_llm.core.batch.layout import Layout
from mlx_agent_llm.core.batch.packing import Packing, bucket
from mlx_agent_llm.core.batch.row_tables import Rounding, extended, own_tables, power_of_two
from mlx_agent_llm.core.batch.sharing import Group, Levels, find_levels
from mlx_agent_llm.core.batch.states import StateOrder
from mlx_agent_llm.core.batch.table_matrix import IntArray, TableMatrix
from mlx_agent_llm.core.batch.window_tables import WindowTables
from mlx_agent_llm.core.kv.clean_blocks import BlockCopy
from mlx_agent_llm.core.schedule.schedule import Schedule
from mlx_agent_llm.request import Request


class BatchMaker:
    """Packs schedules; remembers the block tables of the last one and what they share."""

    def __init__(self, block_size: int, packing: Packing) -> None:
        self._block_size = block_size
        self._packing = packing
        self._tables = TableMatrix(packing.padding_block)
        self._window_tables = None
        if packing.window:
            self._window_tables = WindowTables(packing.window, block_size, packing.window_padding_block)
        self._levels: Levels = ()
        self._levels_hold = False  # for as long as the tables are the same and have a row each

    def make(self, schedule: Schedule, in_flight: Sequence[Request | None]) -> Batch:
        """Pack a schedule; `in_flight` names the requests, row by row, whose last samples were not read yet.

        None is a row whose sample nobody takes.
        """
        states = StateOrder(schedule) if self._packing.has_states else None
        layout = Layout.of(schedule, self._packing, states)
        tables, widths, is_same = self._tables.update([request.kv.block_table for request in layout.requests])
        self._levels_hold = self._levels_hold and is_same
        token_ids, sources = layout.token_ids(in_flight)
        sampled = layout.sampled
        rows = self._row_span(layout, tables, widths) if layout.num_rows else None
        tokens = self._token_arrays(layout, token_ids, sources, sampled.rows, tables)
        window = None if self._window_tables is None else self._window_tables.arrays(layout)
        packed = pack(BatchArrays(tokens, rows, layout.prompt_tables(tables, widths), window))
        arrays, changes = packed.unpack(), schedule.changes
        batch = Batch(
            arrays.tokens,
            arrays.rows,
            prompts=tuple(map(layout.prompt_span, layout.prompts, arrays.prompt_tables)),
            num_rows=layout.num_rows,
            num_padding=layout.num_padding,
            num_tokens=layout.ends[-1],
            in_buckets=layout.in_buckets,
            num_prompt_tokens=schedule.num_prompt_tokens,
            has_in_flight=max(sources) >= 0,
            sampled=sampled.requests,
            places=sampled.places,
            copies=_slot_copies(changes.copies, self._block_size),
            states=None if states is None else states.batch(layout.chunks, layout.num_idle),
            packed=packed,
        )
        if arrays.window is None:
            return batch
        window_copies = _slot_copies(changes.window_copies, self._block_size)
        return batch._replace(window=window_batch(batch, arrays.window, window_copies))

    def _token_arrays(
        self,
        layout: Layout,
        token_ids: Sequence[int],
        sources: Sequence[int],
        sampled_rows: Sequence[int],
        tables: IntArray,
    ) -> TokenArrays[IntArray]:
        """With the idle rows and the padding after the tokens."""
        num_fill = layout.num_idle + layout.num_padding
        return TokenArrays(
            token_ids=extended(token_ids, num_fill, 0),
            in_flight_sources=extended(sources, num_fill, -1),
            positions=extended(layout.positions, num_fill, 0),
            slot_mapping=layout.slot_mapping(tables, self._block_size, self._packing.padding_block),
            sampled_rows=extended(sampled_rows, layout.num_rows - len(sampled_rows) if layout.in_buckets else 0, 0),
        )

    def _row_span(self, layout: Layout, tables: IntArray, widths: IntArray) -> RowSpan[IntArray]:
        """Idle rows attend to one token of nobody's block."""
        num_real = layout.num_rows - layout.num_idle
        positions, owners = layout.positions[:num_real], layout.owners[:num_real]
        has_a_row_each = num_real == len(tables)
        if not has_a_row_each:
            tables, widths = tables[owners], widths[owners]
        if not (has_a_row_each and self._levels_hold):
            # Full blocks, and one token at least is left. Tables that grow go on sharing what they share.
            self._levels = find_levels(tables, positions // self._block_size, self._packing.costs)
        self._levels_hold = has_a_row_each
        begins = _ends_of_shared(self._levels, num_real)
        shape, width, level_width = (bucket, power_of_two, _in_steps) if layout.in_buckets else (int, int, int)
        return RowSpan(
            levels=tuple(
                _level_arrays(groups, tables, layout.num_rows, self._block_size, shape, level_width)
                for groups in self._levels
            ),
            block_tables=own_tables(tables, widths, begins, width, layout.num_idle, self._packing.padding_block),
            seq_lens=extended(positions + 1 - begins * self._block_size, layout.num_idle, 1),
        )


def _in_steps(width: int) -> int:
    """The next one of those with at most three leading bits: few, and at most a quarter more is computed."""
    step = 1 << max(width.bit_length() - 3, 0)
    return -(-width // step) * step


def _slot_copies(copies: Sequence[BlockCopy], block_size: int) -> SlotCopies | None:
    if not copies:
        return None
    blocks = np.array(copies, dtype=np.int32)
    slots = blocks[:, :, None] * block_size + np.arange(block_size, dtype=np.int32)
    return SlotCopies(mx.array(slots[:, 0].ravel()), mx.array(slots[:, 1].ravel()))


def _ends_of_shared(levels: Levels, num_rows: int) -> IntArray:
    """(R,) blocks of each row that it reads together with others."""
    ends = np.zeros(num_rows, dtype=np.int32)
    for groups in levels:
        for group in groups:
            ends[list(group.rows)] = group.end
    return ends


def _level_arrays(
    groups: Sequence[Group], tables: IntArray, num_rows: int, block_size: int, shape: Rounding, width_of: Rounding
) -> SharedLevel[IntArray]:
    """What groups of rows read, and who is in which."""
    num_groups = shape(len(groups))
    num_members = shape(max(len(group.rows) for group in groups))
    width = width_of(max(group.end - group.begin for group in groups))
    block_tables = np.zeros((num_groups, width), dtype=np.int32)
    seq_lens = np.zeros(num_groups, dtype=np.int32)
    members = np.zeros((num_groups, num_members), dtype=np.int32)
    places = np.full(num_rows, -1, dtype=np.int32)
    for index, (rows, begin, end) in enumerate(groups):
        block_tables[index] = tables[rows[0], begin]  # after its end too: another request's block may be spoiled
        block_tables[index, : end - begin] = tables[rows[0], begin:end]
        seq_lens[index] = (end - begin) * block_size
        members[index, : len(rows)] = rows
        places[list(rows)] = index * num_members + np.arange(len(rows))
    return SharedLevel(block_tables, seq_lens, members, places)
