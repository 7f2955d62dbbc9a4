"""Transformer blocks in a third of the launches, for a GPU.

To start an operation costs the host several microseconds, more than a GPU needs for most of those in a decode step. A
block of the usual form (Llama's: norm, attention, residual, norm, gated MLP, residual) is computed in six or seven
launches over a paged layer; with any other cache it does what it always did. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import HeadOptions, Norm
from mlx_agent_llm.core.forward.fast.adaptation import Adaptation, Form
from mlx_agent_llm.core.forward.fast.equivalence import agrees_on_a_trial
from mlx_agent_llm.core.forward.fast.head_options import find_head_options, find_norm, head_dim
from mlx_agent_llm.core.forward.fast.projections import Projection, can_join, join
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape

_BLOCK = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "rope", "n_heads", "n_kv_heads", "scale")
_MLP = ("gate_proj", "up_proj", "down_proj")


class FusedBlock(Form):
    """The form of a block."""

    _parts: _Parts

    def __call__(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        """(T, 1, width) of T tokens that are rows of their own, over a paged layer; with any other cache as ever."""
        if isinstance(cache, PagedLayer):
            parts: _Parts = self._parts
            return parts.forward(x, cache)
        output: mx.array = super().__call__(x, mask, cache)  # type: ignore[misc]
        return output


def fuse_blocks(model: nn.Module, adaptation: Adaptation) -> None:
    """Give every block that has this form, as a trial shows, its fused form."""
    for block in model.layers:
        if adaptation.keep(block):
            continue
        parts = _find_parts(block)
        if parts is not None and agrees_on_a_trial(block, parts.forward, _kv_shape(block.self_attn)):
            adaptation.give(block, FusedBlock, _parts=parts)


class _Parts(NamedTuple):
    """What a fused block computes with."""

    attention_norm: Norm
    heads: HeadOptions
    scale: float
    qkv: Projection
    output: Projection
    mlp_norm: Norm
    gate_up: Projection
    down: Projection

    def forward(self, x: mx.array, layer: PagedLayer) -> mx.array:
        """(T, 1, width) of T tokens that are rows of their own; same shape."""
        queries = layer.write_projected(self.qkv(x, norm=self.attention_norm), self.heads)
        attended = layer.attend_heads(queries, self.scale).reshape(len(x), 1, -1)
        hidden = self.output(attended, residual=x)
        gated = self.gate_up(hidden, norm=self.mlp_norm, is_gated=True)
        return self.down(gated, residual=hidden)


def _find_parts(block: Any) -> _Parts | None:
    """The parts of a block that looks like one of the usual form; None for any other."""
    if not _has(block, _BLOCK) or not _has(block.self_attn, _ATTENTION) or not _has(block.mlp, _MLP):
        return None
    attention, mlp = block.self_attn, block.mlp
    attention_norm, mlp_norm = find_norm(block.input_layernorm), find_norm(block.post_attention_layernorm)
    heads = find_head_options(attention)
    groups = [
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj,),
    ]
    if heads is None or attention_norm is None or mlp_norm is None or not all(map(can_join, groups)):
        return None
    qkv, output, gate_up, down = map(join, groups)
    return _Parts(attention_norm, heads, float(attention.scale), qkv, output, mlp_norm, gate_up, down)


def _has(module: Any, names: Sequence[str]) -> bool:
    return all(hasattr(module, name) for name in names)


def _kv_shape(attention: Any) -> KVShape:
    """What a block of the usual form stores for a token."""
    weights = attention.q_proj.scales if "scales" in attention.q_proj else attention.q_proj.weight
    dim = head_dim(attention)
    return KVShape(attention.n_kv_heads, dim, dim, weights.dtype)
