"""From a token's projections to the queries that attend and to the keys and values in their pools."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels.checks import check_projected, check_rotation_kernel
from mlx_agent_kernels.loader import Body, Constants, backend, load_kernel
from mlx_agent_kernels.reference import write_kv

_HEAD_WARPS = 4


class HeadOptions(NamedTuple):
    """What a layer does to its heads: RoPE turns ROTARY dimensions by position * frequencies, after norms if any.

    frequencies: (rotary / 2,) float32, radians a token; traditional: pairs of neighbours are turned, and not the i-th
    of one half with the i-th of the other. q_norm, k_norm: (D,) weights of RMS norms head by head, both or none.
    """

    heads: int
    frequencies: mx.array
    traditional: bool
    q_norm: mx.array | None = None
    k_norm: mx.array | None = None
    eps: float = 0.0


def rotate_and_write(
    projected: mx.array,
    positions: mx.array,
    slot_mapping: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    options: HeadOptions,
) -> tuple[mx.array, mx.array, mx.array]:
    """Norm and turn the heads of queries and keys, and put keys and values into their slots.

    projected: (T, ..., (H + 2K) * D), queries, keys and values side by side; positions, slot_mapping: (T,) int32;
    pools: (slots, K, D). Returns the (T, H, D) queries and the pools. On a GPU the pools are written in place when the
    queries are computed, whoever else holds them, and MLX orders nothing by them: what reads them afterwards must
    depend on the queries, and what read them before must be among the origins of `projected`, or waited for. On a CPU
    as by write_kv.
    Raises ValueError for arrays that do not fit each other, and on a GPU for what its kernels are not made for.
    """
    check_projected(projected, positions, slot_mapping, k_pool, v_pool, options.heads)
    if backend() == "reference":
        return rotate_and_write_reference(projected, positions, slot_mapping, k_pool, v_pool, options)
    check_rotation_kernel(projected, k_pool, v_pool)
    return _launch(projected, positions, slot_mapping, k_pool, v_pool, options), k_pool, v_pool


def rotate_and_write_reference(
    projected: mx.array,
    positions: mx.array,
    slot_mapping: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    options: HeadOptions,
) -> tuple[mx.array, mx.array, mx.array]:
    """See rotate_and_write; the pools are written as by write_kv."""
    kv_heads, dim = k_pool.shape[1:]
    heads = projected.reshape(len(projected), -1, dim)
    queries, keys, values = mx.split(heads, [options.heads, options.heads + kv_heads], axis=1)
    queries = _turn(_normalise(queries, options.q_norm, options.eps), positions, options)
    keys = _turn(_normalise(keys, options.k_norm, options.eps), positions, options)
    return queries, write_kv(k_pool, slot_mapping, keys), write_kv(v_pool, slot_mapping, values)


def _normalise(heads: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    return heads if weight is None else mx.fast.rms_norm(heads, weight, eps)


def _turn(heads: mx.array, positions: mx.array, options: HeadOptions) -> mx.array:
    """RoPE of (T, heads, D) in float32, in the type it came in."""
    rotary = 2 * options.frequencies.size
    angles = positions.astype(mx.float32)[:, None, None] * options.frequencies
    cosines, sines = mx.cos(angles), mx.sin(angles)
    turning = heads[..., :rotary].astype(mx.float32)
    if options.traditional:
        first, second = turning[..., 0::2], turning[..., 1::2]
    else:
        first, second = mx.split(turning, 2, axis=-1)
    turned = [first * cosines - second * sines, first * sines + second * cosines]
    joined = mx.stack(turned, axis=-1).flatten(-2) if options.traditional else mx.concatenate(turned, axis=-1)
    return mx.concatenate([joined.astype(heads.dtype), heads[..., rotary:]], axis=-1)


def _launch(
    projected: mx.array,
    positions: mx.array,
    slot_mapping: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    options: HeadOptions,
) -> mx.array:
    """Launch rotate_heads, which writes the pools: the queries."""
    _, kv_heads, dim = k_pool.shape
    inputs = {"projected": projected, "positions": positions.astype(mx.int32), "frequencies": options.frequencies}
    if options.q_norm is not None and options.k_norm is not None:
        inputs |= {"q_norm": options.q_norm, "k_norm": options.k_norm}
    inputs |= {"slot_mapping": slot_mapping.astype(mx.int32), "k_pool": k_pool, "v_pool": v_pool}
    constants: Constants = (
        ("HEAD_DIM", dim),
        ("KV_HEADS", kv_heads),
        ("GROUP", options.heads // kv_heads),
        ("ROTARY_DIMS", 2 * options.frequencies.size),
        ("TRADITIONAL", options.traditional),
        ("HAS_NORM", options.q_norm is not None),
        ("EPS", float(options.eps)),
        ("HEAD_WARPS", _HEAD_WARPS),
    )
    types = tuple(array.dtype for array in inputs.values())
    all_heads = len(projected) * (options.heads + 2 * kv_heads)
    body = Body("rotate_heads", tuple(inputs), ("queries",))
    [queries] = load_kernel(body, backend(), projected.dtype, types, constants)(
        inputs=list(inputs.values()),
        grid=(32 * _HEAD_WARPS * -(-all_heads // _HEAD_WARPS), 1, 1),
        threadgroup=(32 * _HEAD_WARPS, 1, 1),
        output_shapes=[(len(projected), options.heads, dim)],
        output_dtypes=[projected.dtype],
    )
    return queries
