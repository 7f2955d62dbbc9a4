"""The seam to mlx-lm: one function of it is replaced, and a paged cache stands where it expects a KV cache.

mlx-lm's layers call `cache.update_and_fetch` with the new keys and values and then `scaled_dot_product_attention`, with
the cache as an argument. For a PagedLayer the first writes the pool and the second attends over it; every other cache
goes to mlx-lm's own function, so the same process can still use mlx-lm as ever. Knows no requests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models.base
from mlx_lm.models.cache import KVCache

from mlx_agent_kernels import (
    HeadOptions,
    chunk_attention,
    paged_attention,
    rotate_and_write,
    shared_prefix_attention,
    write_kv,
)
from mlx_agent_llm.core.batch import Batch, PromptSpan, RowSpan
from mlx_agent_llm.errors import UnsupportedModelError


class KVShape(NamedTuple):
    """What one attention layer stores for a token."""

    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: mx.Dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.size


class PagedLayer:
    """One attention layer's pools, (slots, kv_heads, head_dim) each, in the shape of an mlx-lm cache.

    Behind the blocks that requests get lies one more, which padding is written to. `batch` is set for the time of one
    forward, in which every token is a sequence of its own: queries are (T, heads, 1, head_dim).
    """

    def __init__(self, shape: KVShape, num_blocks: int, block_size: int) -> None:
        slots = (num_blocks + 1) * block_size
        self.keys = mx.zeros((slots, shape.kv_heads, shape.key_dim), dtype=shape.dtype)
        self.values = mx.zeros((slots, shape.kv_heads, shape.value_dim), dtype=shape.dtype)
        mx.eval(self.keys, self.values)  # the memory is taken here, not by the first request
        self.block_size = block_size
        self.batch: Batch | None = None

    @property
    def current_batch(self) -> Batch:
        """The batch of the forward that is being built."""
        assert self.batch is not None, "a paged layer was used outside of a forward"
        return self.batch

    @property
    def offset(self) -> mx.array:
        """(T,) the position of each token, which RoPE takes per row."""
        return self.current_batch.tokens.positions

    def make_mask(self, num_tokens: int, return_array: bool = False, window_size: int | None = None) -> None:
        """No mask: attention over the pool knows each row's length."""
        assert window_size is None, "sliding windows are refused when the engine is made"

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the tokens' keys and values, (T, kv_heads, 1, head_dim), to their slots."""
        self.write(self.current_batch.tokens.slot_mapping, keys[:, :, 0], values[:, :, 0])
        return keys, values

    def take_pools(self) -> tuple[mx.array, mx.array]:
        """Hand the pools over to a function that writes them; put_pools brings back what it made of them."""
        pools = self.keys, self.values
        del self.keys, self.values
        return pools

    def put_pools(self, keys: mx.array, values: mx.array) -> None:
        """Set the pools."""
        self.keys, self.values = keys, values

    def read(self, slots: mx.array) -> tuple[mx.array, mx.array]:
        """The keys and values in (C,) slots, (C, kv_heads, head_dim) each."""
        return self.keys[slots], self.values[slots]

    def write(self, slots: mx.array, keys: mx.array, values: mx.array) -> None:
        """Put keys and values, (C, kv_heads, head_dim) each, into (C,) slots."""
        self.keys = write_kv(self.keys, slots, keys)
        self.values = write_kv(self.values, slots, values)

    def write_projected(self, projected: mx.array, options: HeadOptions) -> mx.array:
        """Write keys and values of (T, 1, features) projections to their slots; the (T, heads, head_dim) queries."""
        tokens = self.current_batch.tokens
        queries, self.keys, self.values = rotate_and_write(
            projected, tokens.positions, tokens.slot_mapping, self.keys, self.values, options
        )
        return queries

    def attend(self, queries: mx.array, scale: float) -> mx.array:
        """Attention of (T, heads, 1, head_dim) queries over the pool; same shape."""
        return self.attend_heads(queries[:, :, 0], scale)[:, :, None]

    def attend_heads(self, queries: mx.array, scale: float) -> mx.array:
        """Attention of (T, heads, head_dim) queries over the pool; same shape."""
        batch = self.current_batch
        parts = [] if batch.rows is None else [self._attend_rows(queries[: batch.num_rows], batch.rows, scale)]
        parts += [self._attend_prompt(queries[span.begin : span.end], span, scale) for span in batch.prompts]
        if batch.num_padding:
            parts.append(mx.zeros((batch.num_padding, *parts[0].shape[1:]), dtype=parts[0].dtype))
        return mx.concatenate(parts) if len(parts) > 1 else parts[0]

    def _attend_rows(self, queries: mx.array, rows: RowSpan, scale: float) -> mx.array:
        pools, own = (self.keys, self.values), (rows.block_tables, rows.seq_lens)
        if not rows.levels:
            return paged_attention(queries, *pools, *own, scale=scale, block_size=self.block_size)
        return shared_prefix_attention(queries, *pools, rows.levels, *own, scale=scale, block_size=self.block_size)

    def _attend_prompt(self, queries: mx.array, span: PromptSpan, scale: float) -> mx.array:
        return chunk_attention(
            queries, self.keys, self.values, span.block_table, span.seq_len, scale=scale, block_size=self.block_size
        )


def call_model(model: Any, token_ids: mx.array, batch: Batch, layers: Sequence[PagedLayer]) -> mx.array:
    """(S, vocab) logits of a batch's sampled rows, with (T,) token_ids in place of its own; layers are written."""
    for layer in layers:
        layer.batch = batch
    try:
        logits: mx.array = model(token_ids[:, None], cache=layers)[:, 0]
    finally:
        for layer in layers:
            layer.batch = None
    return logits


def install_seam() -> None:
    """Route mlx-lm's attention through us, once a process: PagedLayers to their pools, everything else as before."""
    original: Any = mlx_lm.models.base.scaled_dot_product_attention
    if getattr(original, "serves_paged_layers", False):
        return

    def scaled_dot_product_attention(
        queries: mx.array, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: mx.array | None = None
    ) -> mx.array:
        if isinstance(cache, PagedLayer):
            return cache.attend(queries, scale)
        if isinstance(cache, _Probe) and sinks is not None:
            raise UnsupportedModelError("attention sinks: only plain full attention is served")
        output: mx.array = original(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
        return output

    scaled_dot_product_attention.serves_paged_layers = True  # type: ignore[attr-defined]
    # Model modules that were imported before hold their own reference to the function.
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "scaled_dot_product_attention", None) is original:
            vars(module)["scaled_dot_product_attention"] = scaled_dot_product_attention


class ModelShape(NamedTuple):
    """What the engine must know of a model before it runs."""

    layers: list[KVShape]
    vocab_size: int  # the width of the logits


def probe_model(model: nn.Module) -> ModelShape:
    """Find a model's shape by building one forward without running it.

    Raises UnsupportedModelError for layers that are not plain full attention.
    """
    install_seam()
    if hasattr(model, "make_cache"):
        kinds = {type(cache).__name__ for cache in model.make_cache()}
        if kinds != {KVCache.__name__}:
            raise UnsupportedModelError(
                f"layers that keep {sorted(kinds)}: only {KVCache.__name__} (full attention) is served"
            )
    probes = [_Probe(model) for _ in model.layers]
    logits = model(mx.zeros((1, 1), dtype=mx.int32), cache=probes)
    return ModelShape([probe.recorded for probe in probes], logits.shape[-1])


class _Probe:
    """A cache that keeps nothing but the shape of what a layer writes, and refuses windows and sinks."""

    offset = 0

    def __init__(self, model: nn.Module) -> None:
        self._name = type(model).__module__
        self._shape: KVShape | None = None

    def make_mask(self, num_tokens: int, return_array: bool = False, window_size: int | None = None) -> None:
        if window_size is not None:
            raise UnsupportedModelError(f"{self._name}: window_size={window_size}; only full attention is served")

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self._shape = KVShape(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype)
        return keys, values

    @property
    def recorded(self) -> KVShape:
        if self._shape is None:
            raise UnsupportedModelError(
                f"{self._name}: a layer keeps no keys and values; only full attention is served"
            )
        return self._shape
