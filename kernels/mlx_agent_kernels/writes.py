"""Keys and values into their slots of the pools, in place on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels.checks import check_writes, check_writes_kernel
from mlx_agent_kernels.loader import Body, Constants, backend, load_kernel
from mlx_agent_kernels.reference import write_kv

_HEAD_WARPS = 4


class Writes(NamedTuple):
    """Pools that are written, and what tells their readers so.

    written: (1,) zero of the pools' type, which is there when the pools are; None where MLX itself knows that they
    change. The attention functions take it.
    """

    pools: tuple[mx.array, ...]
    written: mx.array | None


def write_pools(pools: Sequence[mx.array], slot_mapping: mx.array, contents: Sequence[mx.array]) -> Writes:
    """Put contents, (T, K, D) each, into the slots of their pools, (slots, K, D) each: keys, and values if any.

    slot_mapping: (T,) int32. On a GPU the pools are written in place, whoever else holds them, and MLX orders nothing
    by them: what reads them afterwards must depend on `written`, and what read them before must be among the origins of
    the contents, or waited for. On a CPU as by write_kv.
    Raises ValueError for arrays that do not fit each other, and on a GPU for what its kernel is not made for.
    """
    check_writes(pools, slot_mapping, contents)
    if backend() == "reference":
        each = zip(pools, contents, strict=True)
        return Writes(tuple(write_kv(pool, slot_mapping, content) for pool, content in each), None)
    check_writes_kernel(pools)
    return Writes(tuple(pools), _launch(pools, slot_mapping, contents))


def _launch(pools: Sequence[mx.array], slot_mapping: mx.array, contents: Sequence[mx.array]) -> mx.array:
    dtype, num_heads = pools[0].dtype, len(slot_mapping) * pools[0].shape[1]
    names = ("keys", "values")[: len(pools)], ("k_pool", "v_pool")[: len(pools)]
    constants: Constants = (
        ("KV_HEADS", pools[0].shape[1]),
        ("KEY_DIM", pools[0].shape[2]),
        ("VALUE_DIM", pools[1].shape[2] if len(pools) > 1 else 0),
        ("HEAD_WARPS", _HEAD_WARPS),
    )
    body = Body("write_pools", ("slot_mapping", *names[0], *names[1]), ("written",))
    [written] = load_kernel(body, backend(), dtype, (), constants)(
        inputs=[slot_mapping.astype(mx.int32), *(content.astype(dtype) for content in contents), *pools],
        grid=(32 * _HEAD_WARPS * -(-num_heads // _HEAD_WARPS), 1, 1),
        threadgroup=(32 * _HEAD_WARPS, 1, 1),
        output_shapes=[(1,)],
        output_dtypes=[dtype],
    )
    return written
