"""The layer of attention: pools of keys and values in the shape of an mlx-lm cache. Knows no requests."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels import (
    HeadOptions,
    chunk_attention,
    paged_attention,
    rotate_and_write,
    shared_prefix_attention,
    write_pools,
)
from mlx_agent_llm.core.batch.batch import Batch, PromptSpan, RowSpan
from mlx_agent_llm.core.forward.layers.layer import Layer
from mlx_agent_llm.core.forward.layers.served_cache import ServedCache, lend, lend_all
from mlx_agent_llm.core.kv.layer_shape import KVShape


class PagedLayer(Layer, ServedCache):
    """One attention layer's pools, (slots, kv_heads, head_dim) each, in the shape of an mlx-lm cache.

    After the blocks that requests get lies one more, which padding is written to. In a forward every token is a
    sequence of its own: queries are (T, heads, 1, head_dim).
    """

    reads_window_tables = False  # those of layers that see a window, where these have their own

    def __init__(self, shape: KVShape, num_blocks: int, block_size: int) -> None:
        slots = (num_blocks + 1) * block_size
        self.keys = mx.zeros((slots, shape.kv_heads, shape.key_dim), dtype=shape.dtype)
        self.values = mx.zeros((slots, shape.kv_heads, shape.value_dim), dtype=shape.dtype)
        mx.eval(self.keys, self.values)  # the memory is taken here, not by the first request
        self.block_size = block_size
        self.window = shape.window
        self.written: mx.array | None = None  # as write_pools says of the last writes

    def part_of(self, batch: Batch) -> Batch:
        """A batch with the tables that this layer reads."""
        return batch.window if self.reads_window_tables and batch.window is not None else batch

    @property
    def offset(self) -> mx.array:
        """(T,) the position of each token, which RoPE takes per row."""
        return self.current_batch.tokens.positions

    def make_mask(self, num_tokens: int, return_array: bool = False, window_size: int | None = None) -> None:
        """No mask: attention over the pool knows each row's length, and the layer its window."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the tokens' keys and values, (T, kv_heads, 1, head_dim), to their slots."""
        self.write(self.current_batch.tokens.slot_mapping, keys[:, :, 0], values[:, :, 0])
        return lend(keys, self), values

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """What a layer takes that reads the keys of this one."""
        keys = lend_all(self, self.offset + 1)
        return keys, keys

    def take_pools(self) -> tuple[mx.array, ...]:
        """Hand the pools over to a function that writes them; put_pools brings back what it made of them."""
        pools = self.keys, self.values
        del self.keys, self.values
        self.written = None
        return pools

    def put_pools(self, *pools: mx.array) -> None:
        """Set the pools."""
        self.keys, self.values = pools

    def read(self, slots: mx.array) -> tuple[mx.array, ...]:
        """The keys and values in (C,) slots, (C, kv_heads, head_dim) each."""
        return self.keys[slots], self.values[slots]

    def write(self, slots: mx.array, *contents: mx.array) -> None:
        """Put keys and values, (C, kv_heads, head_dim) each, into (C,) slots."""
        (self.keys, self.values), self.written = write_pools((self.keys, self.values), slots, contents)

    def write_projected(self, projected: mx.array, options: HeadOptions) -> mx.array:
        """Write keys and values of (T, 1, features) projections to their slots; the (T, heads, head_dim) queries."""
        tokens = self.current_batch.tokens
        queries, self.keys, self.values = rotate_and_write(
            projected, tokens.positions, tokens.slot_mapping, self.keys, self.values, options
        )
        self.written = None  # the queries say so
        return queries

    def serve(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: mx.array | object | None,
        sinks: mx.array | None,
    ) -> mx.array:
        """Attention of (T, heads, 1, head_dim) queries over the pool, which holds the values; same shape."""
        return self.attend_heads(queries[:, :, 0], scale, sinks)[:, :, None]

    def attend_heads(
        self, queries: mx.array, scale: float, sinks: mx.array | None = None, softcap: float | None = None
    ) -> mx.array:
        """Attention of (T, heads, head_dim) queries over the pool; (T, heads, value_dim)."""
        batch = self.current_batch
        options = AttentionOptions(scale, self.block_size, self.window, sinks, softcap, self.written)
        parts = [] if batch.rows is None else [self._attend_rows(queries[: batch.num_rows], batch.rows, options)]
        parts += [self._attend_prompt(queries[span.begin : span.end], span, options) for span in batch.prompts]
        if batch.num_padding:
            parts.append(mx.zeros((batch.num_padding, *parts[0].shape[1:]), dtype=parts[0].dtype))
        return mx.concatenate(parts) if len(parts) > 1 else parts[0]

    def _attend_rows(self, queries: mx.array, rows: RowSpan[mx.array], options: AttentionOptions) -> mx.array:
        pools, own = self._pools_to_read(), (rows.block_tables, rows.seq_lens)
        if not rows.levels:
            return paged_attention(queries, *pools, *own, **options._asdict())
        return shared_prefix_attention(queries, *pools, rows.levels, *own, **options._asdict())

    def _attend_prompt(self, queries: mx.array, span: PromptSpan, options: AttentionOptions) -> mx.array:
        pools = self._pools_to_read()
        return chunk_attention(queries, *pools, span.block_table, span.seq_len, **options._asdict())

    def _pools_to_read(self) -> tuple[mx.array, mx.array | int]:
        return self.keys, self.values


class AttentionOptions(NamedTuple):
    """What the attention functions take beside queries, pools and tables."""

    scale: float
    block_size: int
    window: int | None
    sinks: mx.array | None
    softcap: float | None
    written: mx.array | None
