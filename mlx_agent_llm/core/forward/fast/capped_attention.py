"""Attention with a soft cap on its scores, which mlx-lm's modules compute themselves: here through the paged kernels.

Gemma 2's form: projections, norms of the heads if any, RoPE, scores of cap * tanh(score / cap), an output projection.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx

from mlx_agent_llm.core.forward.fast.adaptation import Form
from mlx_agent_llm.core.forward.fast.equivalence import agrees_on, trial_tokens
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape

_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "rope", "n_heads", "n_kv_heads", "scale", "attn_logit_softcapping")
_SIZES = (0.1, 1.0, 10.0)  # of inputs, with which scores grow


def has_capped_form(module: Any, shape: KVShape) -> bool:
    """Whether a module computes what its capped form does, as a trial shows whose scores reach the cap."""
    if not all(hasattr(module, name) for name in _PARTS) or not module.attn_logit_softcapping:
        return False
    tokens = [trial_tokens(module.o_proj.weight.shape[0], size, shape) for size in _SIZES]
    mask = mx.tri(len(tokens[0]), dtype=mx.bool_)
    return all(agrees_on(each, module, mask, partial(_attend, module), shape) for each in tokens)


class Capped(Form):
    """The form of an attention module with a soft cap, over a PagedLayer; with any other cache it computes as ever."""

    def __call__(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        """See the class."""
        if isinstance(cache, PagedLayer):
            return _attend(self, x, cache)
        output: mx.array = super().__call__(x, mask, cache)  # type: ignore[misc]
        return output


def _attend(module: Any, x: mx.array, layer: PagedLayer) -> mx.array:
    """(T, 1, width) of T tokens that are rows of their own; same shape."""

    def heads(name: str, count: int, norm: str) -> mx.array:
        split = getattr(module, name)(x).reshape(len(x), 1, count, -1)
        normed: mx.array = getattr(module, norm)(split) if norm in module else split
        return normed.transpose(0, 2, 1, 3)

    queries = module.rope(heads("q_proj", module.n_heads, "q_norm"), offset=layer.offset)
    keys = module.rope(heads("k_proj", module.n_kv_heads, "k_norm"), offset=layer.offset)
    layer.update_and_fetch(keys, heads("v_proj", module.n_kv_heads, "v_norm"))
    attended = layer.attend_heads(queries[:, :, 0], module.scale, softcap=module.attn_logit_softcapping)
    output: mx.array = module.o_proj(attended.reshape(len(x), 1, -1))
    return output
