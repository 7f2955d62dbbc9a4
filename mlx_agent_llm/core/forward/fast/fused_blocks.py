"""Transformer blocks in a third of the launches, for a GPU.

To start an operation costs the host several microseconds, more than a GPU needs for most of those in a decode step. A
block of the usual form (Llama's: norm, attention, residual, norm, gated MLP, residual) gets a subclass of its own class
that computes it in six or seven launches over a paged layer; with any other cache it does what it always did. Its
projections are joined when the model is prepared, and the layers that they came from keep them as views: no memory is
doubled, and weights that are set afterwards are not seen here. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_agent_kernels import HeadOptions, Norm, QuantizedWeight, Weight, project
from mlx_agent_llm.core.forward.fast.equivalence import agrees_on_a_trial, turns_alike
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape

_BLOCK = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "rope", "n_heads", "n_kv_heads", "scale")
_MLP = ("gate_proj", "up_proj", "down_proj")


def fuse_blocks(model: nn.Module) -> int:
    """Give every block that has this form, as a trial shows, its fused form; returns how many have it."""
    for block in model.layers:
        if not isinstance(block, _FusedBlock) and (parts := _find_parts(block)) is not None:
            _try_to_fuse(block, parts)
    return sum(isinstance(block, _FusedBlock) for block in model.layers)


class _Projection(NamedTuple):
    """One or several linear layers with the same inputs, their outputs side by side."""

    weight: Weight
    bias: mx.array | None

    def __call__(
        self, x: mx.array, *, norm: Norm | None = None, residual: mx.array | None = None, is_gated: bool = False
    ) -> mx.array:
        return project(x, self.weight, bias=self.bias, norm=norm, residual=residual, is_gated=is_gated)


class _Parts(NamedTuple):
    """What a fused block computes with."""

    attention_norm: Norm
    heads: HeadOptions
    scale: float
    qkv: _Projection
    output: _Projection
    mlp_norm: Norm
    gate_up: _Projection
    down: _Projection


class _FusedBlock:
    """The mixin of a fused block."""

    _parts: _Parts

    def __call__(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        """(T, 1, width) of T tokens that are rows of their own."""
        if not isinstance(cache, PagedLayer):
            output: mx.array = super().__call__(x, mask, cache)  # type: ignore[misc]
            return output
        parts: _Parts = self._parts
        queries = cache.write_projected(parts.qkv(x, norm=parts.attention_norm), parts.heads)
        attended = cache.attend_heads(queries, parts.scale).reshape(len(x), 1, -1)
        hidden = parts.output(attended, residual=x)
        gated = parts.gate_up(hidden, norm=parts.mlp_norm, is_gated=True)
        return parts.down(gated, residual=hidden)


def _try_to_fuse(block: nn.Module, parts: _Parts) -> None:
    base: type = type(block)
    block._parts = parts
    block.__class__ = type(f"Fused{base.__name__}", (_FusedBlock, base), {})
    if not agrees_on_a_trial(block, base, _kv_shape(block.self_attn)):
        block.__class__ = base
        del block._parts


def _kv_shape(attention: Any) -> KVShape:
    """What a block of the usual form stores for a token."""
    weights = attention.q_proj.scales if "scales" in attention.q_proj else attention.q_proj.weight
    dim = _head_dim(attention)
    return KVShape(attention.n_kv_heads, dim, dim, weights.dtype)


def _head_dim(attention: Any) -> int:
    num_features: int = attention.q_proj.weight.shape[0]
    return num_features // int(attention.n_heads)


def _find_parts(block: Any) -> _Parts | None:
    """The parts of a block that looks like one of the usual form; None for any other."""
    if not _has(block, _BLOCK) or not _has(block.self_attn, _ATTENTION) or not _has(block.mlp, _MLP):
        return None
    attention, mlp = block.self_attn, block.mlp
    norms = [_norm(block.input_layernorm), _norm(block.post_attention_layernorm)]
    heads = _head_options(attention)
    groups = [
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj,),
    ]
    if heads is None or not all(_can_join(group) for group in groups):
        return None
    if norms[0] is None or norms[1] is None:
        return None
    qkv, output, gate_up, down = map(_join, groups)
    return _Parts(norms[0], heads, float(attention.scale), qkv, output, norms[1], gate_up, down)


def _has(module: Any, names: Sequence[str]) -> bool:
    return all(hasattr(module, name) for name in names)


def _norm(module: Any) -> Norm | None:
    return Norm(module.weight, module.eps) if type(module) is nn.RMSNorm else None


def _head_options(attention: Any) -> HeadOptions | None:
    """How the attention's heads are normed and turned; None where that is not what our kernel does."""
    frequencies = _frequencies(attention.rope)
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    if frequencies is None:
        return None
    mx.eval(frequencies)  # here: another thread, of a second engine on this model, could not
    if (norms[0] is None) != (norms[1] is None):
        return None
    options = HeadOptions(attention.n_heads, frequencies, bool(attention.rope.traditional))
    if norms[0] is not None:
        first, second = map(_norm, norms)
        if first is None or second is None or first.eps != second.eps:
            return None
        options = options._replace(q_norm=first.weight, k_norm=second.weight, eps=first.eps)
    return options if turns_alike(attention.rope, options, _head_dim(attention)) else None


def _frequencies(rope: Any) -> mx.array | None:
    """(dims / 2,) radians a token of a RoPE module of mlx or mlx-lm."""
    if type(rope) is nn.RoPE:
        return mx.array((rope.scale * float(rope.base) ** -(np.arange(0, rope.dims, 2) / rope.dims)).astype(np.float32))
    if _has(rope, ("_freqs", "dims", "traditional")):
        frequencies: mx.array = 1.0 / rope._freqs
        return frequencies
    return None


def _can_join(layers: Sequence[Any]) -> bool:
    """Whether one product can stand for all of them."""
    first = layers[0]
    if {type(layer) for layer in layers} not in ({nn.Linear}, {nn.QuantizedLinear}):
        return False
    if type(first) is nn.QuantizedLinear:
        kinds = {(layer.group_size, layer.bits, layer.mode, layer.scales.dtype, "biases" in layer) for layer in layers}
    else:
        kinds = {layer.weight.dtype for layer in layers}
    return len(kinds) == 1 and len({"bias" in layer for layer in layers}) == 1


def _join(layers: Sequence[Any]) -> _Projection:
    """One projection for all; what the layers hold become views of it."""
    arrays = {name: _join_arrays(layers, name) for name in ("weight", "scales", "biases", "bias") if name in layers[0]}
    bias = arrays.pop("bias", None)
    if type(layers[0]) is nn.Linear:
        return _Projection(arrays["weight"], bias)
    first = layers[0]
    quantized = arrays["weight"], arrays["scales"], arrays.get("biases")
    return _Projection(QuantizedWeight(*quantized, first.group_size, first.bits, first.mode), bias)


def _join_arrays(layers: Sequence[Any], name: str) -> mx.array:
    if len(layers) == 1:
        only: mx.array = layers[0][name]
        return only
    joined = mx.concatenate([layer[name] for layer in layers])
    mx.eval(joined)
    begin = 0
    for layer in layers:
        end = begin + len(layer[name])
        layer[name] = joined[begin:end]
        begin = end
    mx.eval([layer[name] for layer in layers])
    return joined
