"""What one forward, its sampling and its attention read. Knows no schedule and no model.

All of a batch's numbers travel to the device as one array: each transfer costs the host as much as several launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels import SharedLevel
from mlx_agent_llm.request import Request

Shapes = tuple[tuple[int, ...], ...]


class PromptSpan(NamedTuple):
    """One prompt chunk's packed tokens [begin, end) and where its sequence lies."""

    begin: int
    end: int
    seq_len: int  # tokens to attend to: all up to the chunk's last one
    block_table: mx.array  # (W,)


class RowSpan(NamedTuple):
    """The tokens that attend as rows of their own, packed tokens [0, R), and what they share with each other."""

    levels: tuple[SharedLevel, ...]
    block_tables: mx.array  # (R, W) after what is shared, padded with any block
    seq_lens: mx.array  # (R,) tokens after what is shared


class SlotCopies(NamedTuple):
    """Pool slots whose keys and values go to other slots before the forward writes anything; (C,) each."""

    sources: mx.array
    targets: mx.array


class TokenArrays(NamedTuple):
    """What a forward reads of T packed tokens, and which of them are sampled."""

    token_ids: mx.array  # (T,); 0 where the token is still on the device...
    in_flight_sources: mx.array  # (T,) ...at this row of the last step's samples; -1 elsewhere
    positions: mx.array  # (T,)
    slot_mapping: mx.array  # (T,)
    sampled_rows: mx.array  # (S,) packed tokens whose logits are wanted; in buckets (T,), with zeros after them


class Batch(NamedTuple):
    """T packed tokens of one forward, S of which are sampled.

    The rows come first, decode rows of one token and the tokens of short chunks; then the prompt chunks, token after
    token.
    """

    tokens: TokenArrays
    rows: RowSpan | None
    prompts: tuple[PromptSpan, ...] = ()
    num_rows: int = 0  # single-token rows, with the idle ones that fill up a bucket
    num_padding: int = 0  # tokens at the end that nobody asked for and that attend to nothing
    in_buckets: bool = False  # rows alone, in one of few shapes
    num_tokens: int = 0  # without idle rows and padding
    num_prompt_tokens: int = 0  # those of chunks that are no stream's next ones
    has_in_flight: bool = False  # any token is still on the device
    sampled: tuple[Request, ...] = ()  # (S,) whose the sampled rows are
    copies: SlotCopies | None = None
    packed: Packed | None = None  # what the arrays are views of


class Packed(NamedTuple):
    """Integers of several arrays, one after the other."""

    integers: mx.array
    shapes: Shapes

    def unpack(self) -> list[mx.array]:
        """The arrays, as views."""
        arrays, begin = [], 0
        for shape in self.shapes:
            end = begin + prod(shape)
            flat = self.integers[begin:end]
            arrays.append(flat if len(shape) == 1 else flat.reshape(shape))
            begin = end
        return arrays


def split_arrays(
    arrays: Sequence[mx.array], num_prompts: int
) -> tuple[TokenArrays, RowSpan | None, Sequence[mx.array]]:
    """The arrays of a batch by what they are for, the prompts' tables last."""
    num_fixed, end = len(TokenArrays._fields), len(arrays) - num_prompts
    rows = arrays[num_fixed:end]
    levels = tuple(SharedLevel(*rows[begin : begin + 4]) for begin in range(2, len(rows), 4))
    return TokenArrays(*arrays[:num_fixed]), RowSpan(levels, rows[0], rows[1]) if rows else None, arrays[end:]


def rows_batch(tokens: TokenArrays, rows: RowSpan) -> Batch:
    """A batch of rows alone, as far as a forward reads it."""
    return Batch(tokens, rows, num_rows=len(tokens.positions))
