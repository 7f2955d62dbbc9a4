"""The seam to mlx-lm: one function of it is replaced, and our layers stand where it expects a KV cache.

mlx-lm's layers call `cache.update_and_fetch` with the new keys and values and then `scaled_dot_product_attention`, with
the cache as an argument, or without it where one layer reads the keys that another wrote. A ServedCache computes the
second itself; every other cache goes to mlx-lm's own function, so the same process can still use mlx-lm as ever. Knows
no requests.
"""

from __future__ import annotations

import sys
from typing import Any

import mlx.core as mx
import mlx_lm.models.base

from mlx_agent_llm.core.forward.layers.served_cache import LentKeys, ServedCache


def install_seam() -> None:
    """Route mlx-lm's attention through us, once a process: served caches to themselves, everything else as before."""
    original: Any = mlx_lm.models.base.scaled_dot_product_attention
    if getattr(original, "knows_served_caches", False):
        return

    def scaled_dot_product_attention(
        queries: mx.array, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: mx.array | None = None
    ) -> mx.array:
        owner = keys.owner if isinstance(keys, LentKeys) else cache
        if isinstance(owner, ServedCache):
            return owner.serve(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
        output: mx.array = original(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
        return output

    scaled_dot_product_attention.knows_served_caches = True  # type: ignore[attr-defined]
    # Model modules that were imported before hold their own reference to the function.
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "scaled_dot_product_attention", None) is original:
            vars(module)["scaled_dot_product_attention"] = scaled_dot_product_attention
