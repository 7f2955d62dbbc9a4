"""A schedule as arrays: what one forward, its sampling and its attention read. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.core.scheduler import Chunk, Schedule
from mlx_agent_llm.request import Request

IntArray = npt.NDArray[np.int32]


class PromptSpan(NamedTuple):
    """One prompt chunk's packed tokens [begin, end) and where its sequence lies."""

    begin: int
    end: int
    seq_len: int  # tokens to attend to: all up to the chunk's last one
    block_table: mx.array  # (W,)


class RowSpan(NamedTuple):
    """The single-token rows, packed tokens [0, R), whose sequences all begin with the blocks of prefix_table."""

    prefix_table: mx.array | None  # (P,), None when nothing is shared
    block_tables: mx.array  # (R, W) after the prefix, padded with block 0
    seq_lens: mx.array  # (R,) tokens after the prefix


class Batch(NamedTuple):
    """T packed tokens of one forward, S of which are sampled.

    The decode rows come first, one token each; then the prompt chunks, token after token.
    """

    token_ids: mx.array  # (T,); 0 where the token is still on the device
    in_flight_rows: mx.array  # (F,) packed tokens whose ids are the last step's samples...
    in_flight_sources: mx.array  # (F,) ...at these rows of it
    positions: mx.array  # (T,)
    slot_mapping: mx.array  # (T,)
    rows: RowSpan | None
    prompts: tuple[PromptSpan, ...]
    sampled_rows: mx.array  # (S,) packed tokens whose logits are wanted
    sampled: tuple[Request, ...]  # (S,) whose they are
    num_tokens: int
    num_rows: int
    num_prompt_tokens: int  # those of chunks that continue no output


def make_batch(schedule: Schedule, in_flight: Sequence[Request], block_size: int, min_shared_blocks: int = 4) -> Batch:
    """Pack a schedule; `in_flight` names the requests, row by row, whose last samples were not read yet."""
    chunks = schedule.chunks
    lengths = np.array([chunk.length for chunk in chunks], dtype=np.int32)
    ends = np.cumsum(lengths, dtype=np.int32)
    positions = np.concatenate([np.arange(c.start, c.start + c.length, dtype=np.int32) for c in chunks])
    sampled = [(int(end) - 1, chunk.request) for end, chunk in zip(ends, chunks, strict=True) if chunk.is_sampled]
    source_of = {id(request): row for row, request in enumerate(in_flight)}
    pending = [
        (int(end) - 1, source_of[id(chunk.request)])
        for end, chunk in zip(ends, chunks, strict=True)
        if chunk.start + chunk.length > len(chunk.request.token_ids)
    ]
    return Batch(
        token_ids=mx.array(np.concatenate([_known_tokens(chunk) for chunk in chunks])),
        in_flight_rows=mx.array(np.array([row for row, _ in pending], dtype=np.int32)),
        in_flight_sources=mx.array(np.array([source for _, source in pending], dtype=np.int32)),
        positions=mx.array(positions),
        slot_mapping=mx.array(np.concatenate([_slots(chunk, block_size) for chunk in chunks])),
        rows=_row_span(schedule.rows, block_size, min_shared_blocks) if schedule.rows else None,
        prompts=tuple(
            PromptSpan(int(end) - chunk.length, int(end), chunk.start + chunk.length, _table(chunk, block_size))
            for end, chunk in zip(ends, chunks, strict=True)
            if chunk.length > 1
        ),
        sampled_rows=mx.array(np.array([row for row, _ in sampled], dtype=np.int32)),
        sampled=tuple(request for _, request in sampled),
        num_tokens=int(ends[-1]),
        num_rows=len(schedule.rows),
        num_prompt_tokens=sum(c.length for c in chunks if c.length > 1 or c.request.num_output_tokens == 0),
    )


def _known_tokens(chunk: Chunk) -> IntArray:
    """(length,) token ids, with 0 for a last one that is in flight."""
    known = chunk.request.token_ids[chunk.start : chunk.start + chunk.length]
    return np.array(known + [0] * (chunk.length - len(known)), dtype=np.int32)


def _slots(chunk: Chunk, block_size: int) -> IntArray:
    """(length,) pool slots that the chunk's keys and values are written to."""
    positions = np.arange(chunk.start, chunk.start + chunk.length, dtype=np.int32)
    table = np.array(chunk.request.block_table, dtype=np.int32)
    return table[positions // block_size] * block_size + positions % block_size


def _table(chunk: Chunk, block_size: int) -> mx.array:
    num_blocks = -(-(chunk.start + chunk.length) // block_size)
    return mx.array(np.array(chunk.request.block_table[:num_blocks], dtype=np.int32))


def _row_span(rows: Sequence[Chunk], block_size: int, min_shared_blocks: int) -> RowSpan:
    tables = np.zeros((len(rows), max(len(row.request.block_table) for row in rows)), dtype=np.int32)
    for index, row in enumerate(rows):
        tables[index, : len(row.request.block_table)] = row.request.block_table
    seq_lens = np.array([row.start + 1 for row in rows], dtype=np.int32)
    shared = _num_shared_blocks(tables, seq_lens, block_size)
    if shared < min_shared_blocks:
        return RowSpan(None, mx.array(tables), mx.array(seq_lens))
    return RowSpan(mx.array(tables[0, :shared]), mx.array(tables[:, shared:]), mx.array(seq_lens - shared * block_size))


def _num_shared_blocks(tables: IntArray, seq_lens: IntArray, block_size: int) -> int:
    """Leading blocks that all rows have in common, leaving each row at least one token of its own."""
    if len(tables) < 2:
        return 0
    limit = int((seq_lens.min() - 1) // block_size)
    differs = (tables[:, :limit] != tables[0, :limit]).any(axis=0)
    return int(differs.argmax()) if differs.any() else limit
