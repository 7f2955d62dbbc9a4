"""Whether a fused form of a module computes what the module computes: both are tried on numbers without sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import HeadOptions, UnsupportedKernelError, rotate_and_write
from mlx_agent_llm.core.batch.batch import BatchArrays, RowSpan, TokenArrays, rows_batch
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape

_POSITIONS = (0, 1, 7, 500, 30_000)
_TOLERANCE = 0.03  # of the whole: bfloat16 leaves a third of it, and what is computed otherwise far more


def turns_alike(rope: nn.Module, options: HeadOptions, dim: int) -> bool:
    """Whether a RoPE module turns heads of `dim` as rotate_and_write does, near and far."""
    positions, pool = mx.array(_POSITIONS, dtype=mx.int32), mx.zeros((len(_POSITIONS), 1, dim))
    heads = mx.random.normal((len(_POSITIONS), 1, 1, dim), key=mx.random.key(0))
    expected: mx.array = rope(heads, offset=positions)
    plain = options._replace(heads=1, q_norm=None, k_norm=None)
    slots = mx.arange(len(_POSITIONS), dtype=mx.int32)
    projected = mx.concatenate([heads] * 3, axis=-1)
    queries, _, _ = rotate_and_write(projected, positions, slots, pool, mx.zeros_like(pool), plain)
    return _is_close(queries, expected[:, :, 0])


def agrees_on_a_trial(block: Any, forward: Callable[[mx.array, PagedLayer], mx.array], shape: KVShape) -> bool:
    """Whether `forward` over a paged layer gives what the block gives for the same three tokens of a sequence."""
    width = block.input_layernorm.weight.shape[0]
    # Small inputs: the block's norms make them large again, and the residual hides nothing of what is added to it.
    return agrees_on(trial_tokens(width, 0.01, shape), block, "causal", forward, shape)


def trial_tokens(width: int, size: float, shape: KVShape) -> mx.array:
    """(3, 1, width) numbers around `size`, of a layer's type."""
    return size * mx.random.normal((3, 1, width), key=mx.random.key(0)).astype(shape.dtype)


def agrees_on(
    tokens: mx.array,
    module: Any,
    mask: mx.array | Literal["causal"],
    forward: Callable[[mx.array, PagedLayer], mx.array],
    shape: KVShape,
) -> bool:
    """Whether `forward` over a paged layer gives what the module gives, with this mask, for a sequence's tokens."""
    numbers = mx.arange(len(tokens), dtype=mx.int32)
    layer = PagedLayer(shape, 1, 16)
    rows = RowSpan((), mx.zeros((len(tokens), 1), dtype=mx.int32), numbers + 1)
    layer.batch = rows_batch(BatchArrays(TokenArrays(*[numbers] * 5), rows, (), None))
    try:
        expected: Any = module(tokens.swapaxes(0, 1), mask, None)
        if not isinstance(expected, mx.array):  # Gemma 4's blocks return the keys and values that later ones read too
            return False
        return _is_close(forward(tokens, layer), expected.swapaxes(0, 1))
    except (TypeError, ValueError, UnsupportedKernelError):  # it is called otherwise, or its heads are not served
        return False


def _is_close(found: mx.array, expected: mx.array) -> bool:
    difference = mx.linalg.norm((found - expected).astype(mx.float32))
    return bool((difference < _TOLERANCE * mx.linalg.norm(expected.astype(mx.float32))).item())
