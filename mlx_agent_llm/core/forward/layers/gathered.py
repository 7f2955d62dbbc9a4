"""The layer of attention that a model computes itself, one sequence after the other. Knows no requests.

Some of mlx-lm's modules do more with their keys than to hand them to its attention function: they choose tokens by an
index, repeat heads in an order of their own, make masks of positions. Such a module gets each sequence's part of packed
tokens as (1, S, width), with a cache that has all of the keys that the sequence sees, as mlx-lm's own would: whatever
it computes, it is mlx-lm's code that does. Keys and values stay in paged pools, whose blocks are shared as ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import CacheList

from mlx_agent_kernels import write_pools
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.layers.layer import leaves_of
from mlx_agent_llm.core.forward.layers.packed_tokens import joined, turned
from mlx_agent_llm.core.kv.layer_shape import KVShape


class GatheredLayer(PagedLayer):
    """One attention layer's pools, of which a module gets what a sequence sees."""

    start_position = 0  # that of a cache which lost nothing

    def __init__(self, shape: KVShape, num_blocks: int, block_size: int) -> None:
        super().__init__(shape, num_blocks, block_size)
        self._is_chunked = shape.is_chunked

    @property
    def offset(self) -> Any:
        """The position of each token, (T,); where models look at it outside of their attention, that of a new cache."""
        return 0 if self._is_chunked else super().offset

    def maybe_trim_front(self) -> None:
        """Nothing is dropped here."""

    def first_seen(self, position: int) -> int:
        """The first token that a token at this position sees."""
        if self.window is None:
            return 0
        return position // self.window * self.window if self._is_chunked else max(position + 1 - self.window, 0)

    def write(self, slots: mx.array, *contents: mx.array) -> None:
        """Put keys and values, (C, kv_heads, head_dim) each, into (C,) slots, after what was written before."""
        pools = [pool for pool in (self.keys, self.values) if pool.size]  # an index of keys alone has no values
        written, self.written = write_pools(pools, self.after_writes(slots), contents[: len(pools)])
        self.keys, self.values = (*written, self.values)[:2]

    def after_writes(self, slots: mx.array) -> mx.array:
        """The same slots, there when the pools are written: zero is added, by which MLX orders what reads them."""
        return slots if self.written is None else slots + self.written.astype(slots.dtype)

    @property
    def writes(self) -> list[mx.array]:
        """What is there when all is written."""
        return [pool for pool in (self.keys, self.values) if pool.size] if self.written is None else [self.written]

    def attend_heads(
        self, queries: mx.array, scale: float, sinks: mx.array | None = None, softcap: float | None = None
    ) -> mx.array:
        """Never: the module attends."""
        raise AssertionError("attention that a module computes itself was asked of its layer")


def gathered_layers(arguments: Sequence[Any]) -> list[GatheredLayer]:
    """Those among the arguments of a module, or within one of them."""
    return [leaf for value in arguments for leaf in leaves_of(value) if isinstance(leaf, GatheredLayer)]


def run_by_sequences(call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """What a module makes of packed arguments with GatheredLayers among them: packed too."""
    bound = inspect.signature(call).bind(*arguments, **options)
    layers = gathered_layers(list(bound.arguments.values()))
    for layer in layers:
        layer.written = None  # earlier steps' are
    batch = layers[0].current_batch
    results = []
    for sequence in _sequences(batch):
        own = {name: sequence.part_of(name, value, layers[0]) for name, value in bound.arguments.items()}
        part = inspect.BoundArguments(bound.signature, own)
        results.append(tree_map(turned, call(*part.args, **part.kwargs)))
    packed = joined(results, batch.num_padding)
    # What is written and not read yet is to be computed all the same, or the next steps' writes pile up on it.
    writes = [array for layer in layers for array in layer.writes]
    return tree_map(lambda array: mx.depends(array, writes) if isinstance(array, mx.array) else array, packed)


class _Sequence(NamedTuple):
    """Packed tokens [begin, end) of one sequence, which has seq_len tokens with them."""

    num_packed: int
    begin: int
    end: int
    seq_len: int
    block_table: mx.array  # (W,)
    table_begin: int  # the token that it begins with

    def part_of(self, name: str, value: Any, layer: GatheredLayer) -> Any:
        """What the module gets of an argument for this sequence."""
        if isinstance(value, GatheredLayer):
            return _SequenceCache(value, self)
        if isinstance(value, CacheList):
            return CacheList(*(self.part_of(name, leaf, layer) for leaf in value.caches))
        if name.endswith("mask"):
            return self._mask(layer)
        if isinstance(value, mx.array) and value.shape[:2] == (self.num_packed, 1):
            return turned(value[self.begin : self.end])
        return value

    def _mask(self, layer: GatheredLayer) -> mx.array | None:
        """(S, L) for S tokens over all that the first of them sees and what follows."""
        if self.end - self.begin == 1:
            return None
        start = self.seq_len - (self.end - self.begin)
        firsts = mx.array([layer.first_seen(position) for position in range(start, self.seq_len)])
        keys = mx.arange(layer.first_seen(start), self.seq_len)
        return (keys >= firsts[:, None]) & (keys <= mx.arange(start, self.seq_len)[:, None])


class _SequenceCache:
    """An mlx-lm cache of one sequence, for one call of a module."""

    def __init__(self, layer: GatheredLayer, sequence: _Sequence) -> None:
        self._layer, self._sequence = layer, sequence
        self.offset = sequence.seq_len - (sequence.end - sequence.begin)
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write (1, kv_heads, S, head_dim) and read what they see, (1, kv_heads, L, head_dim)."""
        layer, sequence = self._layer, self._sequence
        new = layer.current_batch.tokens.slot_mapping[sequence.begin : sequence.end]
        layer.write(new, keys[0].swapaxes(0, 1), values[0].swapaxes(0, 1))
        slots = sequence.block_table[:, None] * layer.block_size + mx.arange(layer.block_size)
        first, begin = layer.first_seen(self.offset), sequence.table_begin
        seen = slots.reshape(-1)[first - begin : sequence.seq_len - begin]
        self.offset = sequence.seq_len
        self.keys, self.values = (array.swapaxes(0, 1)[None] for array in layer.read(layer.after_writes(seen)))
        return self.keys, self.values


def _sequences(batch: Batch) -> Iterator[_Sequence]:
    """Rows one by one, and prompt chunks."""
    num_packed = len(batch.tokens.positions)
    if batch.rows is not None:
        assert not batch.rows.levels, "what rows share is not told apart here"
        # The host's own numbers: nothing is waited for.
        positions: Any = batch.tokens.positions[: batch.num_rows].tolist()
        lengths: Any = batch.rows.seq_lens.tolist()  # in their tables
        for row, (position, length) in enumerate(zip(positions, lengths, strict=True)):
            table = batch.rows.block_tables[row]
            yield _Sequence(num_packed, row, row + 1, position + 1, table, position + 1 - length)
    for begin, end, seq_len, table in batch.prompts:
        yield _Sequence(num_packed, begin, end, seq_len, table, 0)
