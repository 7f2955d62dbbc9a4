"""The order of a schedule's tokens in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_agent_llm.core.batch.batch import PromptSpan
from mlx_agent_llm.core.batch.packing import Packing, bucket
from mlx_agent_llm.core.batch.row_tables import extended
from mlx_agent_llm.core.batch.states import StateOrder
from mlx_agent_llm.core.batch.table_matrix import IntArray
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.request import Request


class SampledRows(NamedTuple):
    """The S packed tokens after which one is sampled, in their order; (S,) each."""

    rows: Sequence[int]
    requests: tuple[Request, ...]  # whose they are
    places: tuple[int, ...]  # how many tokens of its request's draft end there


class Layout(NamedTuple):
    """The tokens of a schedule in their order: decode rows, short chunks, prompt chunks, idle rows or padding."""

    chunks: list[Chunk]
    requests: tuple[Request, ...]  # each chunk's
    num_prompts: int  # chunks at the end that attend as such
    ends: Sequence[int]  # after each chunk's tokens
    owners: IntArray  # (T,) the chunk that a token is of
    positions: IntArray  # (T,)
    num_rows: int  # with the idle ones
    num_idle: int
    num_padding: int
    in_buckets: bool
    are_plain_rows: bool  # each chunk is one token, and a token is sampled after each

    @staticmethod
    def of(schedule: Schedule, packing: Packing, states: StateOrder | None) -> Layout:
        """The layout of a schedule whose states follow an order."""
        prompts = [chunk for chunk in schedule.prompts if chunk.length > packing.max_row_chunk]
        short = [chunk for chunk in schedule.prompts if chunk.length <= packing.max_row_chunk]
        chunks = [*(schedule.rows if states is None else states.rows), *short, *prompts]
        requests, starts, lengths, are_sampled = zip(*chunks, strict=True)
        ends = list(accumulate(lengths))
        num_rows = ends[-1] - sum(chunk.length for chunk in prompts)
        in_buckets = packing.in_buckets and not prompts and (not short or num_rows <= packing.max_bucket_of_chunks)
        in_buckets = in_buckets and (states is None or states.are_alone)
        num_idle = bucket(num_rows) - num_rows if in_buckets else 0
        owners, positions = np.arange(len(chunks), dtype=np.int32), np.array(starts, dtype=np.int32)
        if ends[-1] > len(chunks):
            begins = np.array(ends, dtype=np.int32) - lengths
            owners = np.repeat(owners, lengths)
            positions = np.arange(ends[-1], dtype=np.int32) + (positions - begins)[owners]
        num_padding = max(packing.min_tokens - ends[-1] - num_idle, 0)
        return Layout(
            chunks,
            requests,
            len(prompts),
            ends,
            owners,
            positions,
            num_rows + num_idle,
            num_idle,
            num_padding,
            in_buckets,
            are_plain_rows=ends[-1] == len(chunks) and all(are_sampled),
        )

    def token_ids(self, in_flight: Sequence[Request | None]) -> tuple[Sequence[int], Sequence[int]]:
        """(T,) with 0 for those in flight, and (T,) where they stand among the last samples; -1 for what is known."""
        if self.are_plain_rows and self.requests == tuple(in_flight):
            return [0] * len(self.chunks), range(len(self.chunks))
        row_of = dict(zip(in_flight, range(len(in_flight)), strict=True))
        token_ids: list[int] = []
        sources = [-1] * self.ends[-1]
        for request, start, length, _ in self.chunks:
            stop = start + length
            if stop <= len(request.token_ids):
                token_ids += request.token_ids[start:stop] if length > 1 else (request.token_ids[start],)
                continue
            if request.draft.token_ids:
                token_ids += [*request.token_ids[start:], *request.draft.token_ids]
                continue
            token_ids += request.token_ids[start:]
            sources[len(token_ids)] = row_of[request]  # the last one's
            token_ids.append(0)
        return token_ids, sources

    @property
    def prompts(self) -> range:
        """The chunks that attend as such."""
        return range(len(self.chunks) - self.num_prompts, len(self.chunks))

    @property
    def sampled(self) -> SampledRows:
        """What is sampled: after a sequence's last token, and after those of its draft."""
        if self.are_plain_rows:  # and without drafts
            return SampledRows(range(len(self.chunks)), self.requests, (0,) * len(self.chunks))
        found = [
            (end - 1 - len(request.draft.token_ids) + place, request, place)
            for (request, _, _, is_sampled), end in zip(self.chunks, self.ends, strict=True)
            if is_sampled
            for place in request.draft.places
        ]
        return SampledRows(*zip(*found, strict=True)) if found else SampledRows((), (), ())

    def slot_mapping(self, tables: IntArray, block_size: int, padding_block: int) -> IntArray:
        """(T,) by (chunks, W) tables, with the slots of idle rows and padding after the tokens'."""
        blocks, offsets = np.divmod(self.positions, block_size)
        slots = tables[self.owners, blocks] * block_size + offsets
        return extended(slots, self.num_idle + self.num_padding, padding_block * block_size)

    def prompt_tables(self, tables: IntArray, widths: IntArray) -> tuple[IntArray, ...]:
        """(W,) each of the chunks that attend as such, by (chunks, W) tables and (chunks,) widths."""
        return tuple(tables[row, : widths[row]] for row in self.prompts)

    def prompt_span(self, index: int, table: mx.array) -> PromptSpan:
        """The span of a chunk."""
        chunk, end = self.chunks[index], self.ends[index]
        return PromptSpan(end - chunk.length, end, chunk.start + chunk.length, table)
