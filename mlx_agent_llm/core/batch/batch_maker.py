"""From a schedule to the arrays of its forward, in the shapes that the device likes. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_agent_kernels import SharedLevel
from mlx_agent_llm.core.batch.batch import Batch, BatchArrays, PromptSpan, RowSpan, SlotCopies, TokenArrays, pack
from mlx_agent_llm.core.batch.sharing import Group, Levels, SharingCosts, find_levels
from mlx_agent_llm.core.batch.states import StateOrder
from mlx_agent_llm.core.batch.table_matrix import IntArray, TableMatrix
from mlx_agent_llm.core.kv.kv_manager import BlockCopy
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.core.schedule.warm_up import KernelSizes
from mlx_agent_llm.request import Request

Rounding = Callable[[int], int]  # how large an array's dimension is made


class Packing(NamedTuple):
    """How a device likes its batches; padding_block is nobody's block."""

    padding_block: int
    min_tokens: int = 1  # fewer tokens than these get company, which no attention is computed for
    in_buckets: bool = False  # batches of rows alone get one of few numbers of rows, and of widths of tables...
    # ...with chunks among them up to so many rows: larger ones come in shapes that are seldom seen again, and to trace
    # a forward takes twice as long as to build its graph.
    max_bucket_of_chunks: int = 64
    max_row_chunk: int = 1  # tokens of a chunk that are rows of their own rather than a prompt chunk
    costs: SharingCosts = SharingCosts(launches=4, copies=1)
    has_states: bool = False  # the model has recurrent layers
    warm_rows: tuple[int, ...] = (1,)  # numbers of rows that have kernels of their own to compile...
    warm_blocks: int = 0  # ...and how many blocks a row has that is read in parts

    @property
    def kernel_sizes(self) -> KernelSizes:
        """What has to be computed once before all kernels are compiled."""
        most = max(self.warm_rows)
        return KernelSizes(
            self.max_row_chunk,
            self.warm_rows,
            max(self.warm_blocks, self.costs.num_worth_sharing(most) or 0),
            self.costs.num_worth_two_levels(most),
        )


class BatchMaker:
    """Packs schedules; remembers the block tables of the last one and what they share."""

    def __init__(self, block_size: int, packing: Packing) -> None:
        self._block_size = block_size
        self._packing = packing
        self._tables = TableMatrix(packing.padding_block)
        self._levels: Levels = ()
        self._levels_hold = False  # for as long as the tables are the same and have a row each

    def make(self, schedule: Schedule, in_flight: Sequence[Request | None]) -> Batch:
        """Pack a schedule; `in_flight` names the requests, row by row, whose last samples were not read yet.

        None is a row whose sample nobody takes.
        """
        states = StateOrder(schedule) if self._packing.has_states else None
        layout = _Layout.of(schedule, self._packing, states)
        tables, widths, is_same = self._tables.update([chunk.request.kv.block_table for chunk in layout.chunks])
        self._levels_hold = self._levels_hold and is_same
        positions, (token_ids, sources) = layout.positions, layout.token_ids(in_flight)
        blocks, offsets = np.divmod(positions, self._block_size)
        slots = tables[layout.owners, blocks] * self._block_size + offsets
        rows = self._row_span(layout, tables, widths) if layout.num_rows else None
        prompts = range(len(layout.chunks) - layout.num_prompts, len(layout.chunks))
        prompt_tables = tuple(tables[row, : widths[row]] for row in prompts)
        packed = pack(BatchArrays(self._token_arrays(layout, token_ids, sources, slots), rows, prompt_tables))
        arrays = packed.unpack()
        return Batch(
            arrays.tokens,
            arrays.rows,
            prompts=tuple(map(layout.prompt_span, prompts, arrays.prompt_tables)),
            num_rows=layout.num_rows,
            num_padding=layout.num_padding,
            num_tokens=layout.ends[-1],
            in_buckets=layout.in_buckets,
            num_prompt_tokens=sum(chunk.length for chunk in layout.chunks if _is_of_a_prompt(chunk)),
            has_in_flight=max(sources) >= 0,
            sampled=tuple(chunk.request for chunk in layout.chunks if chunk.is_sampled),
            copies=_slot_copies(schedule.copies, self._block_size) if schedule.copies else None,
            states=None if states is None else states.batch(layout.chunks, layout.num_idle),
            packed=packed,
        )

    def _token_arrays(
        self, layout: _Layout, token_ids: list[int], sources: list[int], slots: IntArray
    ) -> TokenArrays[IntArray]:
        """With the idle rows and the padding after the tokens."""
        num_fill, sampled_rows = layout.num_idle + layout.num_padding, layout.sampled_rows
        return TokenArrays(
            token_ids=_extended(token_ids, num_fill, 0),
            in_flight_sources=_extended(sources, num_fill, -1),
            positions=_extended(layout.positions, num_fill, 0),
            slot_mapping=_extended(slots, num_fill, self._packing.padding_block * self._block_size),
            sampled_rows=_extended(sampled_rows, layout.num_rows - len(sampled_rows) if layout.in_buckets else 0, 0),
        )

    def _row_span(self, layout: _Layout, tables: IntArray, widths: IntArray) -> RowSpan[IntArray]:
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
        shape, width, level_width = (bucket, _power_of_two, _in_steps) if layout.in_buckets else (int, int, int)
        return RowSpan(
            levels=tuple(
                _level_arrays(groups, tables, layout.num_rows, self._block_size, shape, level_width)
                for groups in self._levels
            ),
            block_tables=_own_tables(tables, widths, begins, width, layout.num_idle, self._packing.padding_block),
            seq_lens=_extended(positions + 1 - begins * self._block_size, layout.num_idle, 1),
        )


class _Layout(NamedTuple):
    """The tokens of a schedule in their order: decode rows, short chunks, prompt chunks, idle rows or padding."""

    chunks: list[Chunk]
    num_prompts: int  # chunks at the end that attend as such
    ends: list[int]  # after each chunk's tokens
    owners: IntArray  # (T,) the chunk that a token is of
    positions: IntArray  # (T,)
    num_rows: int  # with the idle ones
    num_idle: int
    num_padding: int
    in_buckets: bool

    @staticmethod
    def of(schedule: Schedule, packing: Packing, states: StateOrder | None) -> _Layout:
        prompts = [chunk for chunk in schedule.prompts if chunk.length > packing.max_row_chunk]
        short = [chunk for chunk in schedule.prompts if chunk.length <= packing.max_row_chunk]
        chunks = [*(schedule.rows if states is None else states.rows), *short, *prompts]
        lengths = [chunk.length for chunk in chunks]
        ends = list(accumulate(lengths))
        num_rows = ends[-1] - sum(chunk.length for chunk in prompts)
        in_buckets = packing.in_buckets and not prompts and (not short or num_rows <= packing.max_bucket_of_chunks)
        in_buckets = in_buckets and (states is None or states.are_alone)
        num_idle = bucket(num_rows) - num_rows if in_buckets else 0
        owners = np.repeat(np.arange(len(chunks), dtype=np.int32), lengths)
        # How much further a chunk's tokens are in their sequence than in the batch.
        shifts = [chunk.start + chunk.length - end for chunk, end in zip(chunks, ends, strict=True)]
        positions = np.arange(ends[-1], dtype=np.int32) + np.array(shifts, dtype=np.int32)[owners]
        num_padding = max(packing.min_tokens - ends[-1] - num_idle, 0)
        return _Layout(
            chunks, len(prompts), ends, owners, positions, num_rows + num_idle, num_idle, num_padding, in_buckets
        )

    def token_ids(self, in_flight: Sequence[Request | None]) -> tuple[list[int], list[int]]:
        """(T,) with 0 for those in flight, and (T,) where they stand among the last samples; -1 for what is known."""
        row_of = dict(zip(in_flight, range(len(in_flight)), strict=True))
        token_ids: list[int] = []
        sources = [-1] * self.ends[-1]
        for (request, start, length, _), end in zip(self.chunks, self.ends, strict=True):
            token_ids += request.token_ids[start : start + length]
            if len(token_ids) < end:  # the last one
                token_ids.append(0)
                sources[end - 1] = row_of[request]
        return token_ids, sources

    @property
    def sampled_rows(self) -> list[int]:
        """(S,) packed tokens."""
        return [end - 1 for chunk, end in zip(self.chunks, self.ends, strict=True) if chunk.is_sampled]

    def prompt_span(self, index: int, table: mx.array) -> PromptSpan:
        """The span of a chunk."""
        chunk, end = self.chunks[index], self.ends[index]
        return PromptSpan(end - chunk.length, end, chunk.start + chunk.length, table)


def bucket(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ... that is at least `count`."""
    power = 1 << max((count - 1).bit_length() - 1, 0)
    return next(size for size in (power, power + power // 2, 2 * power) if size >= count)


def _power_of_two(width: int) -> int:
    """The next one, 16 at least: what a table is wider than its rows need costs a transfer and no reading."""
    return max(1 << (width - 1).bit_length(), 16)


def _in_steps(width: int) -> int:
    """The next one of those with at most three leading bits: few, and at most a quarter more is computed."""
    step = 1 << max(width.bit_length() - 3, 0)
    return -(-width // step) * step


def _is_of_a_prompt(chunk: Chunk) -> bool:
    """Whether the chunk is no more of a stream: its request has no output, or has to compute it again."""
    return chunk.request.num_output_tokens == 0 or chunk.length > max(chunk.request.num_jumped_tokens, 1)


def _slot_copies(copies: Sequence[BlockCopy], block_size: int) -> SlotCopies:
    blocks = np.array(copies, dtype=np.int32)
    slots = blocks[:, :, None] * block_size + np.arange(block_size, dtype=np.int32)
    return SlotCopies(mx.array(slots[:, 0].ravel()), mx.array(slots[:, 1].ravel()))


def _extended(values: Sequence[int] | IntArray, count: int, filler: int) -> IntArray:
    extended = np.full(len(values) + count, filler, dtype=np.int32)
    extended[: len(values)] = values
    return extended


def _ends_of_shared(levels: Levels, num_rows: int) -> IntArray:
    """(R,) blocks of each row that it reads together with others."""
    ends = np.zeros(num_rows, dtype=np.int32)
    for groups in levels:
        for group in groups:
            ends[list(group.rows)] = group.end
    return ends


def _own_tables(
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
