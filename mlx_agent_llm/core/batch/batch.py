"""What one forward, its sampling and its attention read. Knows no schedule and no model.

All of a batch's numbers travel to the device as one array: each transfer costs the host as much as several launches.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Generic, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np

from mlx_agent_kernels import SharedLevel
from mlx_agent_llm.core.batch.table_matrix import IntArray
from mlx_agent_llm.request import Request

Shape = tuple[int, ...]
Array = TypeVar("Array")  # IntArray on the host, mx.array on the device, or the Shape of either
Other = TypeVar("Other")


class TokenArrays(NamedTuple, Generic[Array]):
    """What a forward reads of T packed tokens, and which of them are sampled."""

    token_ids: Array  # (T,); 0 where the token is still on the device...
    in_flight_sources: Array  # (T,) ...at this row of the last step's samples; -1 elsewhere
    positions: Array  # (T,)
    slot_mapping: Array  # (T,)
    sampled_rows: Array  # (S,) packed tokens whose logits are wanted; in buckets (T,), with zeros after them

    def map(self, function: Callable[[Array], Other]) -> TokenArrays[Other]:
        """The results of a function of each array, in their places."""
        return TokenArrays(*map(function, self))


class RowSpan(NamedTuple, Generic[Array]):
    """The tokens that attend as rows of their own, packed tokens [0, R), and what they share with each other."""

    levels: tuple[SharedLevel[Array], ...]
    block_tables: Array  # (R, W) after what is shared, padded with any block
    seq_lens: Array  # (R,) tokens after what is shared

    def map(self, function: Callable[[Array], Other]) -> RowSpan[Other]:
        """The results of a function of each array, in their places."""
        levels = tuple(SharedLevel(*map(function, level)) for level in self.levels)
        return RowSpan(levels, function(self.block_tables), function(self.seq_lens))


class WindowArrays(NamedTuple, Generic[Array]):
    """Where the layers that see a window have their keys and values."""

    slot_mapping: Array  # (T,)
    rows: RowSpan[Array] | None  # from the first block on that each row sees, nothing of it shared
    prompt_tables: tuple[Array, ...]  # (W,) each; what is behind the window is nobody's

    def map(self, function: Callable[[Array], Other]) -> WindowArrays[Other]:
        """The results of a function of each array, in their places."""
        rows = None if self.rows is None else self.rows.map(function)
        return WindowArrays(function(self.slot_mapping), rows, tuple(map(function, self.prompt_tables)))


class BatchArrays(NamedTuple, Generic[Array]):
    """All the arrays of a batch that travel together."""

    tokens: TokenArrays[Array]
    rows: RowSpan[Array] | None
    prompt_tables: tuple[Array, ...]  # (W,) each
    window: WindowArrays[Array] | None  # where some layers have tables of their own

    def map(self, function: Callable[[Array], Other]) -> BatchArrays[Other]:
        """The results of a function of each array, in their places."""
        rows = None if self.rows is None else self.rows.map(function)
        window = None if self.window is None else self.window.map(function)
        return BatchArrays(self.tokens.map(function), rows, tuple(map(function, self.prompt_tables)), window)


class PromptSpan(NamedTuple):
    """One prompt chunk's packed tokens [begin, end) and where its sequence lies."""

    begin: int
    end: int
    seq_len: int  # tokens to attend to: all up to the chunk's last one
    block_table: mx.array  # (W,)


class StateRows(NamedTuple):
    """Packed tokens [0, R) that each take one state on; idle ones at the end have no slots."""

    num_rows: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]


class StateChunk(NamedTuple):
    """Packed tokens [begin, end) that take one state on, after another chunk's where its source is that one's target.

    source None: they begin a sequence.
    """

    begin: int
    end: int
    source: int | None
    target: int | None


class StateBatch(NamedTuple):
    """What recurrent layers make of a batch's tokens: the rows in one call, then the chunks in their order."""

    rows: StateRows | None
    chunks: tuple[StateChunk, ...]
    empty_slots: frozenset[int]  # of states that nobody wants any more after the forward


class SlotCopies(NamedTuple):
    """Pool slots whose keys and values go to other slots before the forward writes anything; (C,) each."""

    sources: mx.array
    targets: mx.array


class Batch(NamedTuple):
    """T packed tokens of one forward, S of which are sampled.

    The rows come first, decode rows of one token and the tokens of short chunks; then the prompt chunks, token after
    token.
    """

    tokens: TokenArrays[mx.array]
    rows: RowSpan[mx.array] | None
    prompts: tuple[PromptSpan, ...] = ()
    num_rows: int = 0  # single-token rows, with the idle ones that fill up a bucket
    num_padding: int = 0  # tokens at the end that nobody asked for and that attend to nothing
    in_buckets: bool = False  # rows alone, in one of few shapes
    num_tokens: int = 0  # without idle rows and padding
    num_prompt_tokens: int = 0  # those of chunks that are no stream's next ones
    has_in_flight: bool = False  # any token is still on the device
    sampled: tuple[Request, ...] = ()  # (S,) whose the sampled rows are, one after the other...
    places: tuple[int, ...] = ()  # (S,) ...and how many tokens of its draft each takes to be right
    copies: SlotCopies | None = None
    window: Batch | None = None  # the same for layers that see a window, where these have tables of their own
    states: StateBatch | None = None  # where the model has recurrent layers
    packed: Packed | None = None  # what the arrays are views of

    @property
    def num_streams(self) -> int:
        """How many requests are sampled."""
        return self.places.count(0)

    @property
    def num_draft_tokens(self) -> int:
        """Of the tokens, those that are of drafts."""
        return sum(
            len(request.draft.token_ids) for request, place in zip(self.sampled, self.places, strict=True) if not place
        )


class Packed(NamedTuple):
    """The integers of a batch's arrays, one after the other."""

    integers: mx.array
    shapes: BatchArrays[Shape]

    def unpack(self) -> BatchArrays[mx.array]:
        """The arrays, as views."""
        end = 0

        def take(shape: Shape) -> mx.array:
            nonlocal end
            begin, end = end, end + prod(shape)
            flat = self.integers[begin:end]
            return flat if len(shape) == 1 else flat.reshape(shape)

        return self.shapes.map(take)


def pack(arrays: BatchArrays[IntArray]) -> Packed:
    """Put host arrays side by side, for one transfer."""
    flat: list[IntArray] = []

    def put(array: IntArray) -> Shape:
        flat.append(array)
        return array.shape

    shapes = arrays.map(put)
    return Packed(mx.array(np.concatenate(flat, axis=None, dtype=np.int32)), shapes)


def rows_batch(arrays: BatchArrays[mx.array]) -> Batch:
    """A batch of rows alone, as far as a forward reads it."""
    batch = Batch(arrays.tokens, arrays.rows, num_rows=len(arrays.tokens.positions))
    return batch if arrays.window is None else batch._replace(window=window_batch(batch, arrays.window))


def window_batch(batch: Batch, window: WindowArrays[mx.array], copies: SlotCopies | None = None) -> Batch:
    """A batch as layers that see a window read it."""
    return batch._replace(
        tokens=batch.tokens._replace(slot_mapping=window.slot_mapping),
        rows=window.rows,
        prompts=tuple(
            span._replace(block_table=table) for span, table in zip(batch.prompts, window.prompt_tables, strict=True)
        ),
        copies=copies,
    )
