"""What the attention functions refuse: arrays that do not fit each other, and what the GPU kernels are not made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx

from mlx_agent_kernels.levels import SharedLevel

HEAD_SIZES = (64, 80, 96, 112, 128, 192, 256)
DTYPES = (mx.float32, mx.float16, mx.bfloat16)
BLOCK_SIZES = range(8, 65)
MAX_GROUP = 16  # query heads a KV head
MAX_LEVELS = 2


class HasShape(Protocol):
    """An array, or several that stand for one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""


class UnsupportedKernelError(ValueError):
    """Arrays that the GPU kernels are not made for; `reference` has no such limits."""


def check_pools(queries: mx.array, k_pool: mx.array, v_pool: mx.array | int, block_size: int) -> None:
    """Raise ValueError where (R, H, D) queries and (slots, K, D) pools of keys and values do not fit each other.

    v_pool: a pool, or how many of the first columns of one head's keys are its values.
    """
    if isinstance(v_pool, int):
        if k_pool.ndim != 3 or k_pool.shape[1] != 1 or not 1 <= v_pool <= k_pool.shape[2]:
            raise _misfit(f"the first {v_pool} columns of keys are values of one head: k_pool (slots, 1, dim)", k_pool)
        v_pool = k_pool
    if queries.ndim != 3 or k_pool.ndim != 3 or v_pool.ndim != 3:
        raise _misfit("queries (rows, heads, dim) and pools (slots, kv_heads, dim)", queries, k_pool, v_pool)
    if k_pool.shape[:2] != v_pool.shape[:2]:
        raise _misfit("k_pool and v_pool differ in slots or heads", k_pool, v_pool)
    if queries.shape[2] != k_pool.shape[2]:
        raise _misfit("queries and k_pool differ in head size", queries, k_pool)
    if queries.shape[1] % k_pool.shape[1]:
        raise _misfit("the heads of queries are no multiple of those of k_pool", queries, k_pool)
    if block_size < 1 or k_pool.shape[0] % block_size:
        raise ValueError(f"block_size={block_size} does not divide the {k_pool.shape[0]} slots of k_pool")


def check_rows(queries: mx.array, block_tables: mx.array, seq_lens: mx.array) -> None:
    """Raise ValueError where the rows' (R, W) tables and (R,) lengths do not fit (R, H, D) queries."""
    if block_tables.ndim != 2 or len(block_tables) != len(queries):
        raise _misfit("block_tables must be (rows of queries, width)", queries, block_tables)
    if seq_lens.ndim != 1 or len(seq_lens) != len(queries):
        raise _misfit("seq_lens must be (rows of queries,)", queries, seq_lens)


def check_levels(queries: mx.array, levels: Sequence[SharedLevel[mx.array]]) -> None:
    """Raise ValueError for too few or many levels, and for arrays that do not fit each other and the queries."""
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise ValueError(f"levels must be 1 to {MAX_LEVELS}; got {len(levels)}")
    for tables, seq_lens, members, places in levels:
        if tables.ndim != 2 or members.ndim != 2 or not len(tables) == len(members) == seq_lens.size:
            raise _misfit(
                "a level's tables, seq_lens and members must be (G, P), (G,), (G, M)", tables, seq_lens, members
            )
        if places.shape != queries.shape[:1]:
            raise _misfit("places must be (rows of queries,)", places, queries)


def check_options(queries: mx.array, window: int | None, sinks: mx.array | None, softcap: float | None) -> None:
    """Raise ValueError for a window or softcap that is not positive, and for sinks that are not one a query head."""
    if window is not None and window < 1:
        raise ValueError(f"window={window} must be at least 1")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap={softcap} must be above 0")
    if sinks is not None and sinks.shape != queries.shape[1:2]:
        raise _misfit("sinks must be (heads of queries,)", queries, sinks)


def check_projection(
    x: mx.array,
    weight: HasShape,
    bias: mx.array | None,
    norm_weight: mx.array | None,
    residual: mx.array | None,
    is_gated: bool,
) -> None:
    """Raise ValueError where (T, 1, K) rows, (N, K) weights and what comes with them do not fit each other."""
    if x.ndim != 3 or x.shape[1] != 1 or len(weight.shape) != 2 or x.shape[2] != weight.shape[1]:
        raise _misfit("rows (T, 1, K) and weight (N, K)", x, weight)
    if is_gated and weight.shape[0] % 2:
        raise _misfit("a gated product wants an even number of features", weight)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise _misfit("bias must be (N,) of the weight's (N, K)", bias, weight)
    if norm_weight is not None and norm_weight.shape != weight.shape[1:]:
        raise _misfit("the norm's weight must be (K,) of the weight's (N, K)", norm_weight, weight)
    features = weight.shape[0] // 2 if is_gated else weight.shape[0]
    if residual is not None and residual.shape != (*x.shape[:2], features):
        raise _misfit(f"residual must be (T, 1, {features})", residual, x)


def check_projected(
    projected: mx.array, positions: mx.array, slot_mapping: mx.array, k_pool: mx.array, v_pool: mx.array, heads: int
) -> None:
    """Raise ValueError where (T, ..., (H + 2K) * D) projections do not fit their places and the (slots, K, D) pools."""
    if k_pool.ndim != 3 or v_pool.shape != k_pool.shape:
        raise _misfit("pools (slots, kv_heads, dim) alike", k_pool, v_pool)
    tokens, (_, kv_heads, dim) = len(projected), k_pool.shape
    if projected.size != tokens * (heads + 2 * kv_heads) * dim:
        raise _misfit(
            f"projected must hold {heads} query heads and the pools' heads of keys and values", projected, k_pool
        )
    if heads % kv_heads:
        raise _misfit(f"{heads} query heads are no multiple of those of the pools", k_pool)
    if positions.shape != (tokens,) or slot_mapping.shape != (tokens,):
        raise _misfit(f"positions and slot_mapping must be ({tokens},)", positions, slot_mapping)


def check_writes(pools: Sequence[mx.array], slot_mapping: mx.array, contents: Sequence[mx.array]) -> None:
    """Raise ValueError where (T, K, D) contents do not fit their (slots, K, D) pools, one or two, and (T,) slots."""
    if not 1 <= len(pools) == len(contents) <= 2:
        raise ValueError(f"pools must be 1 or 2, with contents each; got {len(pools)} and {len(contents)}")
    if slot_mapping.ndim != 1:
        raise _misfit("slot_mapping must be (tokens,)", slot_mapping)
    for pool, content in zip(pools, contents, strict=True):
        if pool.ndim != 3 or pool.shape[:2] != pools[0].shape[:2]:
            raise _misfit("pools (slots, kv_heads, dim) of as many slots and heads", *pools)
        if content.shape != (len(slot_mapping), *pool.shape[1:]):
            raise _misfit("contents must be (tokens of slot_mapping, kv_heads, dim)", content, slot_mapping, pool)


def is_for_products(key_dim: int, value_dim: int) -> bool:
    """Whether heads of these widths are attended to by matrix products over copies of what each row sees."""
    return key_dim != value_dim or key_dim > HEAD_SIZES[-1]


def check_kernel(queries: mx.array, k_pool: mx.array, v_pool: mx.array, block_size: int) -> None:
    """Raise UnsupportedKernelError for what the GPU kernels are not made for, naming it and what they are made for."""
    dim, group = k_pool.shape[2], queries.shape[1] // k_pool.shape[1]
    if dim not in HEAD_SIZES:
        raise UnsupportedKernelError(f"head size {dim}: the GPU kernels serve {_listed(HEAD_SIZES)}")
    if k_pool.dtype not in DTYPES:
        raise UnsupportedKernelError(f"pools of {k_pool.dtype}: the GPU kernels serve {_listed(DTYPES)}")
    if not queries.dtype == k_pool.dtype == v_pool.dtype:
        dtypes = _listed((queries.dtype, k_pool.dtype, v_pool.dtype))
        raise UnsupportedKernelError(
            f"queries, k_pool and v_pool of {dtypes}: the GPU kernels serve one type for all three"
        )
    if block_size not in BLOCK_SIZES:
        raise UnsupportedKernelError(
            f"block_size={block_size}: the GPU kernels serve {BLOCK_SIZES[0]} to {BLOCK_SIZES[-1]}"
        )
    if group > MAX_GROUP:
        raise UnsupportedKernelError(f"{group} query heads a KV head: the GPU kernels serve 1 to {MAX_GROUP}")


def check_writes_kernel(pools: Sequence[mx.array]) -> None:
    """Raise UnsupportedKernelError for types that the GPU kernel which writes pools is not made for."""
    dtypes = tuple(pool.dtype for pool in pools)
    if dtypes[0] not in DTYPES or len(set(dtypes)) > 1:
        raise UnsupportedKernelError(f"pools of {_listed(dtypes)}: the GPU kernels serve one of {_listed(DTYPES)}")


def check_rotation_kernel(projected: mx.array, k_pool: mx.array, v_pool: mx.array) -> None:
    """Raise UnsupportedKernelError for what the GPU kernel that writes the pools beside turning is not made for."""
    dim = k_pool.shape[2]
    if is_for_products(dim, v_pool.shape[2]):  # these wait for no queries
        raise UnsupportedKernelError(f"head size {dim}: the GPU kernels serve {_listed(HEAD_SIZES)}")
    dtypes = (projected.dtype, k_pool.dtype, v_pool.dtype)
    if projected.dtype not in DTYPES or set(dtypes) != {projected.dtype}:
        raise UnsupportedKernelError(
            f"projections and pools of {_listed(dtypes)}: the GPU kernels serve one of {_listed(DTYPES)} for all three"
        )


def _misfit(rule: str, *arrays: HasShape) -> ValueError:
    return ValueError(f"{rule}; got shapes {' and '.join(str(tuple(array.shape)) for array in arrays)}")


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value).removeprefix("mlx.core.") for value in values)
