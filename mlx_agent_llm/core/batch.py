"""A schedule as arrays: what one forward, its sampling and its attention read. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_agent_llm.core.kv_manager import BlockCopy
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
    block_tables: mx.array  # (R, W) after the prefix, padded with any block
    seq_lens: mx.array  # (R,) tokens after the prefix


class SlotCopies(NamedTuple):
    """Pool slots whose keys and values go to other slots before the forward writes anything; (C,) each."""

    sources: mx.array
    targets: mx.array


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
    num_tokens: int  # without the padding
    num_rows: int  # single-token rows, with the idle ones that fill up a bucket
    num_padding: int  # tokens at the end that nobody asked for and that attend to nothing
    num_prompt_tokens: int  # those of chunks that continue no output
    copies: SlotCopies | None


class Padding(NamedTuple):
    """What a batch is filled up with where the device likes other shapes better; padding_block is nobody's block."""

    padding_block: int
    min_tokens: int = 1  # fewer tokens than these get company, which no attention is computed for
    in_buckets: bool = False  # batches of rows alone get one of few numbers of rows and of table widths


def bucket(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ... that is at least `count`."""
    power = 1 << max((count - 1).bit_length() - 1, 0)
    return next(size for size in (power, power + power // 2, 2 * power) if size >= count)


def make_batch(
    schedule: Schedule,
    in_flight: Sequence[Request],
    block_size: int,
    padding: Padding | None = None,
    *,
    min_shared_blocks: int = 4,
) -> Batch:
    """Pack a schedule; `in_flight` names the requests, row by row, whose last samples were not read yet."""
    padding = padding or Padding(0)
    if schedule.prompts:
        padding = padding._replace(in_buckets=False)
    chunks = schedule.chunks
    ends = list(accumulate(chunk.length for chunk in chunks))
    num_idle_rows = bucket(len(chunks)) - len(chunks) if padding.in_buckets else 0
    num_padding = max(padding.min_tokens - ends[-1] - num_idle_rows, 0)
    zeros = [0] * (num_idle_rows + num_padding)
    last_rows = [(end - 1, chunk) for end, chunk in zip(ends, chunks, strict=True)]
    sampled = [(row, chunk.request) for row, chunk in last_rows if chunk.is_sampled]
    source_of = {id(request): row for row, request in enumerate(in_flight)}
    pending = [(row, source_of[id(chunk.request)]) for row, chunk in last_rows if _ends_in_flight(chunk)]
    return Batch(
        token_ids=_array([token_id for chunk in chunks for token_id in _known_tokens(chunk)] + zeros),
        in_flight_rows=_array([row for row, _ in pending]),
        in_flight_sources=_array([source for _, source in pending]),
        positions=_array([p for chunk in chunks for p in range(chunk.start, chunk.start + chunk.length)] + zeros),
        slot_mapping=_array(
            [slot for chunk in chunks for slot in _slots(chunk, block_size)]
            + [padding.padding_block * block_size for _ in zeros]
        ),
        rows=_row_span(schedule.rows, num_idle_rows, padding, block_size, min_shared_blocks) if schedule.rows else None,
        prompts=tuple(
            PromptSpan(end - chunk.length, end, chunk.start + chunk.length, _table(chunk, block_size))
            for end, chunk in zip(ends, chunks, strict=True)
            if chunk.length > 1
        ),
        sampled_rows=_array([row for row, _ in sampled]),
        sampled=tuple(request for _, request in sampled),
        num_tokens=ends[-1],
        num_rows=len(schedule.rows) + num_idle_rows,
        num_padding=num_padding,
        num_prompt_tokens=sum(c.length for c in chunks if c.length > 1 or c.request.num_output_tokens == 0),
        copies=_slot_copies(schedule.copies, block_size) if schedule.copies else None,
    )


def _array(values: Sequence[int]) -> mx.array:
    return mx.array(np.array(values, dtype=np.int32))


def _ends_in_flight(chunk: Chunk) -> bool:
    return chunk.start + chunk.length > len(chunk.request.token_ids)


def _known_tokens(chunk: Chunk) -> list[int]:
    """(length,) token ids, with 0 for a last one that is in flight."""
    known = chunk.request.token_ids[chunk.start : chunk.start + chunk.length]
    return known + [0] * (chunk.length - len(known))


def _slots(chunk: Chunk, block_size: int) -> list[int]:
    """(length,) pool slots that the chunk's keys and values are written to."""
    table = chunk.request.block_table
    positions = range(chunk.start, chunk.start + chunk.length)
    return [table[position // block_size] * block_size + position % block_size for position in positions]


def _slot_copies(copies: Sequence[BlockCopy], block_size: int) -> SlotCopies:
    blocks = np.array(copies, dtype=np.int32)
    slots = blocks[:, :, None] * block_size + np.arange(block_size, dtype=np.int32)
    return SlotCopies(mx.array(slots[:, 0].ravel()), mx.array(slots[:, 1].ravel()))


def _table(chunk: Chunk, block_size: int) -> mx.array:
    num_blocks = -(-(chunk.start + chunk.length) // block_size)
    return _array(chunk.request.block_table[:num_blocks])


def _row_span(
    rows: Sequence[Chunk], num_idle_rows: int, padding: Padding, block_size: int, min_shared_blocks: int
) -> RowSpan:
    """The rows, and behind them the idle ones, which attend to one token of the padding block."""
    widths = [len(row.request.block_table) for row in rows]
    tables = np.full((len(rows) + num_idle_rows, max(widths)), padding.padding_block, dtype=np.int32)
    for index, row in enumerate(rows):
        tables[index, : widths[index]] = row.request.block_table
    seq_lens = np.array([row.start + 1 for row in rows] + [1] * num_idle_rows, dtype=np.int32)
    shared = _num_shared_blocks(tables[: len(rows)], seq_lens[: len(rows)], block_size)
    shared = _in_steps(shared) if padding.in_buckets else shared
    shared = shared if shared >= min_shared_blocks else 0
    seq_lens[: len(rows)] -= shared * block_size
    own = tables[:, shared:]
    if padding.in_buckets:
        missing = bucket(own.shape[1]) - own.shape[1]
        own = np.pad(own, [(0, 0), (0, missing)], constant_values=padding.padding_block)
    return RowSpan(mx.array(tables[0, :shared]) if shared else None, mx.array(own), mx.array(seq_lens))


def _in_steps(count: int) -> int:
    """The next number at most `count` of those with at most three leading bits set: few, and at least 4/5 of it."""
    step = 1 << max(count.bit_length() - 3, 0)
    return count // step * step


def _num_shared_blocks(tables: IntArray, seq_lens: IntArray, block_size: int) -> int:
    """Leading blocks that all rows have in common, leaving each row at least one token of its own."""
    if len(tables) < 2:
        return 0
    limit = int((seq_lens.min() - 1) // block_size)
    differs = (tables[:, :limit] != tables[0, :limit]).any(axis=0)
    return int(differs.argmax()) if differs.any() else limit
