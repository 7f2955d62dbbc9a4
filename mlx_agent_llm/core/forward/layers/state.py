"""The layer of a recurrent state, around mlx-lm's own modules and in the shape of their cache. Knows no requests.

mlx-lm's module takes (B, S, width) and an ArraysCache of B states. Packed tokens go through it as one call for all
rows, (R, 1, width), and one for each chunk, (1, S, width), each with a real ArraysCache; their results are packed
again. So whatever a module computes, it is mlx-lm's own code that does, for Mamba as for linear attention.

There is no pool: a slot's arrays are what the last call left in its cache, a row's a part of the whole call's. Rows
that stay together from step to step, as in decoding they do, are handed back as they came, without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import ArraysCache

from mlx_agent_llm.core.batch.batch import StateBatch, StateChunk, StateRows
from mlx_agent_llm.core.forward.layers.layer import Layer
from mlx_agent_llm.core.forward.layers.packed_tokens import joined, turned
from mlx_agent_llm.core.kv.layer_shape import StateShape


class StateLayer(Layer):
    """One recurrent layer's states, by slots: load comes before a forward, store after it."""

    def __init__(self, shape: StateShape) -> None:
        self.num_arrays = len(shape.arrays)
        self._places: dict[int, _Place] = {}
        self._num_rows = 0
        self._rows = ArraysCache(self.num_arrays)
        self._chunks: list[_Chunk] = []

    def make_mask(self, num_tokens: int) -> None:
        """No mask: sequences that are computed together are equally long."""

    def load(self, states: StateBatch) -> None:
        """Get ready what the forward begins from."""
        if states.rows is not None:
            self._load_rows(states.rows)
        for span in states.chunks:
            self._chunks.append(self._begin(span))

    def run(self, call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """What a module makes of packed arguments, of which this layer is one: packed too."""
        batch = self.current_batch
        parts: list[tuple[int, Any]] = []
        if self._num_rows:
            pick = _Pick(batch.tokens.positions, 0, self._num_rows, self._rows, are_rows=True)
            parts.append((0, pick.call(call, arguments, options)))
        for chunk in self._chunks:
            chunk.follow()
            pick = _Pick(batch.tokens.positions, chunk.span.begin, chunk.span.end, chunk.cache, are_rows=False)
            parts.append((chunk.span.begin, pick.call(call, arguments, options)))
        return joined([part for _, part in sorted(parts, key=lambda part: part[0])], batch.num_padding)

    def store(self, states: StateBatch) -> list[mx.array]:
        """Keep what the forward ended with; the arrays that are to be computed with it."""
        made: list[mx.array] = []
        if states.rows is not None:
            made += self._keep_sources(states.rows)
        if states.rows is not None and self.are_rows_alike:
            arrays = list(self._rows.cache)
            self._places.update((target, _Place(arrays, row)) for row, target in enumerate(states.rows.targets))
            made += arrays
        for chunk in self._chunks:
            if chunk.span.target is not None:
                self._places[chunk.span.target] = _Place(chunk.cache.cache, 0)
                made += chunk.cache.cache
        for slot in states.empty_slots:
            self._places.pop(slot, None)
        self._num_rows, self._chunks = 0, []
        return made

    def read_slot(self, slot: int) -> list[mx.array]:
        """The state in a slot, (1, ...) each; nothing where there is none."""
        return self._places[slot].read() if slot in self._places else []

    def write_slot(self, slot: int, arrays: list[mx.array]) -> None:
        """Put what read_slot returned into a slot."""
        self._places[slot] = _Place(arrays, 0)

    def take_pools(self) -> tuple[mx.array, ...]:
        """Hand over the rows' states to a function that makes the next ones of them."""
        return tuple(self._rows.cache)

    def put_pools(self, *arrays: mx.array) -> None:
        """Set the rows' states."""
        self._rows.cache = list(arrays)

    @property
    def are_rows_alike(self) -> bool:
        """Whether the rows that were loaded are one call."""
        return self._num_rows > 0

    def _load_rows(self, rows: StateRows) -> None:
        """As one call, or as one each where the size of a state depends on its sequence's length."""
        places = [self._places[source] for source in rows.sources]
        first = places[0].arrays
        if len(first[0]) == rows.num_rows and all(place.is_row(row, first) for row, place in enumerate(places)):
            self._num_rows, self._rows.cache = rows.num_rows, list(first)
            return
        if all(place.dims == places[0].dims for place in places):
            self._num_rows, self._rows.cache = rows.num_rows, _side_by_side(places, rows.num_rows)
            return
        num_idle = rows.num_rows - len(places)
        sources, targets = [*rows.sources, *rows.sources[:1] * num_idle], [*rows.targets, *[None] * num_idle]
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
            self._chunks.append(self._begin(StateChunk(index, index + 1, source, target)))

    def _begin(self, span: StateChunk) -> _Chunk:
        cache = ArraysCache(self.num_arrays)
        if span.source is None:
            return _Chunk(span, cache, None)
        before = next((chunk for chunk in reversed(self._chunks) if chunk.span.target == span.source), None)
        if before is None:
            cache.cache = self._places[span.source].read()
        return _Chunk(span, cache, before)

    def _keep_sources(self, rows: StateRows) -> list[mx.array]:
        """Let snapshots that rows went on from hold their own states alone, not all of a call's."""
        made: list[mx.array] = []
        for source, target in zip(rows.sources, rows.targets, strict=True):
            if source != target and len(self._places[source].arrays[0]) > 1:
                arrays = [mx.contiguous(array) for array in self._places[source].read()]
                self._places[source] = _Place(arrays, 0)
                made += arrays
        return made


class _Place(NamedTuple):
    """Where a slot's state is: in one row of what a call left in its cache."""

    arrays: list[mx.array]
    row: int

    @property
    def dims(self) -> list[tuple[int, ...]]:
        """The size of each array."""
        return [array.shape[1:] for array in self.arrays]

    def is_row(self, row: int, arrays: list[mx.array]) -> bool:
        """Whether it is that row of that call."""
        return self.arrays is arrays and self.row == row

    def read(self) -> list[mx.array]:
        """The state, (1, ...) each."""
        return list(self.arrays) if len(self.arrays[0]) == 1 else [a[self.row : self.row + 1] for a in self.arrays]


@dataclass
class _Chunk:
    """A chunk's state while its forward is built; modules that share a cache have entries of their own."""

    span: StateChunk
    cache: ArraysCache
    before: _Chunk | None  # that it goes on from
    _found: list[Any] = field(default_factory=list)  # the entries that the module that runs found there

    def follow(self) -> None:
        """Take over the entries that the module that runs has changed in the chunk before."""
        if self.before is not None:
            for index, (found, now) in enumerate(zip(self.before._found, self.before.cache.cache, strict=True)):
                if now is not found:
                    self.cache[index] = now
        self._found = list(self.cache.cache)


class _Pick(NamedTuple):
    """What of packed arguments belongs to rows, as (R, 1, ...), or to a chunk, as (1, S, ...)."""

    positions: mx.array
    begin: int
    end: int
    cache: ArraysCache
    are_rows: bool

    def call(self, call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """The results for these tokens, packed."""
        result = call(*map(self._of, arguments), **{name: self._of(value) for name, value in options.items()})
        return result if self.are_rows else tree_map(turned, result)

    def _of(self, value: Any) -> Any:
        if isinstance(value, StateLayer):
            return self.cache
        if value is self.positions:  # of a chunk a module takes the first one's
            return value[self.begin : self.end if self.are_rows else self.begin + 1]
        if isinstance(value, mx.array) and value.shape[:2] == (len(self.positions), 1):
            part = value[self.begin : self.end]
            return part if self.are_rows else turned(part)
        return value


def _side_by_side(places: list[_Place], num_rows: int) -> list[mx.array]:
    """The states of rows; idle rows get the first one's."""
    pieces = list(_neighbours([*places, *places[:1] * (num_rows - len(places))]))
    indices = range(len(places[0].arrays))
    return [mx.concatenate([arrays[i][begin:end] for arrays, begin, end in pieces]) for i in indices]


def _neighbours(places: Sequence[_Place]) -> Iterator[tuple[list[mx.array], int, int]]:
    """Rows of one call that follow each other, as [begin, end) of its arrays."""
    begin = 0
    for index in range(1, len(places) + 1):
        arrays, row = places[begin]
        if index == len(places) or not places[index].is_row(row + index - begin, arrays):
            yield arrays, row, row + index - begin
            begin = index
