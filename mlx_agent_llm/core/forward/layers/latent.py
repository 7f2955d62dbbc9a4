"""The layer of multi-head latent attention (DeepSeek-AI, 2024): one pool, whose values are its first columns.

mlx-lm's modules cache a latent and a rotary part of each token. For single tokens they absorb the products with the
latent into the queries: the scores are (q_nope . latent + q_pe . rotary) * scale, and the values are the latents. The
second part of the scores they compute on their own, from the rotary keys that the cache returns, and hand it to
attention as its mask. Here these keys are the identity, so what arrives as the mask is q_pe * scale.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_agent_kernels import write_pools
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.layers.served_cache import lend
from mlx_agent_llm.core.kv.layer_shape import KVShape


class LatentLayer(PagedLayer):
    """One latent layer's pool, (slots, 1, latent + rotary), in the shape of an mlx-lm cache."""

    def __init__(self, shape: KVShape, num_blocks: int, block_size: int) -> None:
        super().__init__(shape._replace(key_dim=shape.key_dim + shape.value_dim, value_dim=0), num_blocks, block_size)
        self._latent_dim = shape.key_dim
        self._identity = mx.eye(shape.value_dim, dtype=shape.dtype)[None, None]
        mx.eval(self._identity)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the tokens' latents and rotary keys, (T, 1, 1, ...) each, to their slots, side by side."""
        joined = mx.concatenate([keys, values], axis=-1)[:, :, 0]
        self.write(self.current_batch.tokens.slot_mapping, joined)
        return lend(keys, self), self._identity

    def take_pools(self) -> tuple[mx.array, ...]:
        """Hand the pool over to a function that writes it; put_pools brings back what it made of it."""
        pool = self.keys
        del self.keys
        self.written = None
        return (pool,)

    def put_pools(self, *pools: mx.array) -> None:
        """Set the pool."""
        [self.keys] = pools

    def read(self, slots: mx.array) -> tuple[mx.array, ...]:
        """What is in (C,) slots, (C, 1, latent + rotary)."""
        return (self.keys[slots],)

    def write(self, slots: mx.array, *contents: mx.array) -> None:
        """Put what `read` returned into (C,) slots."""
        (self.keys,), self.written = write_pools((self.keys,), slots, contents)

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
        """Attention of (T, heads, 1, latent) queries and rotary ones, which are the mask; the queries' shape."""
        assert isinstance(mask, mx.array)
        joined = mx.concatenate([queries * scale, mask.astype(queries.dtype)], axis=-1)
        return self.attend_heads(joined[:, :, 0], 1.0, sinks)[:, :, None]

    def _pools_to_read(self) -> tuple[mx.array, mx.array | int]:
        return self.keys, self._latent_dim
