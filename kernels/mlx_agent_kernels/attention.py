"""The attention functions of the package: arguments checked, then the kernels on a GPU, or the reference on the CPU.

Each takes `written`, what write_pools returned of the pools: MLX orders nothing by pools that are written in place. Our
kernels have the queries among their inputs, and what MLX computes reads the pools through tables, so these wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import mlx.core as mx

from mlx_agent_kernels import gpu, reference
from mlx_agent_kernels.checks import (
    check_kernel,
    check_levels,
    check_options,
    check_pools,
    check_rows,
    is_for_products,
)
from mlx_agent_kernels.levels import SharedLevel
from mlx_agent_kernels.loader import backend


@overload
def paged_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array | int,
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
    written: mx.array | None = None,
    return_lse: Literal[False] = False,
) -> mx.array: ...


@overload
def paged_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array | int,
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
    written: mx.array | None = None,
    return_lse: Literal[True],
) -> tuple[mx.array, mx.array]: ...


def paged_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array | int,
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
    written: mx.array | None = None,
    return_lse: bool = False,
) -> mx.array | tuple[mx.array, mx.array]:
    """Attention of decode rows, one query token each, over their own blocks, as reference.paged_attention says.

    Raises ValueError for arrays that do not fit each other, and on a GPU for what its kernels are not made for.
    """
    check_pools(queries, k_pool, v_pool, block_size)
    check_rows(queries, block_tables, seq_lens)
    check_options(queries, window, sinks, softcap)
    options: Any = {"scale": scale, "block_size": block_size, "window": window, "sinks": sinks, "softcap": softcap}
    if isinstance(v_pool, int) or not _uses_kernels(queries, k_pool, v_pool, block_size):
        own: Any = (_after(written, block_tables), seq_lens)
        out, lse = reference.paged_attention(queries, k_pool, v_pool, *own, **options)
    else:
        own = (block_tables, seq_lens)
        out, lse = gpu.paged_attention(_after(written, queries), k_pool, v_pool, *own, **options)
    return (out, lse) if return_lse else out


def shared_prefix_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array | int,
    levels: Sequence[SharedLevel[mx.array]],
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
    written: mx.array | None = None,
) -> mx.array:
    """Attention of decode rows that have blocks in common, as reference.shared_prefix_attention says.

    Raises ValueError for arrays that do not fit each other, and on a GPU for what its kernels are not made for.
    """
    check_pools(queries, k_pool, v_pool, block_size)
    check_rows(queries, block_tables, seq_lens)
    check_levels(queries, levels)
    check_options(queries, window, sinks, softcap)
    options: Any = {"scale": scale, "block_size": block_size, "window": window, "sinks": sinks, "softcap": softcap}
    if isinstance(v_pool, int) or not _uses_kernels(queries, k_pool, v_pool, block_size):
        levels = [level._replace(block_tables=_after(written, level.block_tables)) for level in levels]
        own: Any = (levels, _after(written, block_tables), seq_lens)
        return reference.shared_prefix_attention(queries, k_pool, v_pool, *own, **options)
    own = (levels, block_tables, seq_lens)
    return gpu.shared_prefix_attention(_after(written, queries), k_pool, v_pool, *own, **options)


def chunk_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array | int,
    block_table: mx.array,
    seq_len: int,
    *,
    scale: float,
    block_size: int,
    window: int | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
    written: mx.array | None = None,
) -> mx.array:
    """Causal attention of a prompt chunk over its sequence, as reference.chunk_attention says.

    Raises ValueError for arrays that do not fit each other, and on a GPU for what its kernels are not made for.
    """
    check_pools(queries, k_pool, v_pool, block_size)
    check_options(queries, window, sinks, softcap)
    options: Any = {"scale": scale, "block_size": block_size, "window": window, "sinks": sinks}
    if isinstance(v_pool, int) or not _uses_kernels(queries, k_pool, v_pool, block_size) or softcap is not None:
        own: Any = (_after(written, block_table), seq_len)
        return reference.chunk_attention(queries, k_pool, v_pool, *own, **options, softcap=softcap)
    return gpu.chunk_attention(_after(written, queries), k_pool, v_pool, block_table, seq_len, **options)


def _uses_kernels(queries: mx.array, k_pool: mx.array, v_pool: mx.array, block_size: int) -> bool:
    """Whether the arrays go to the GPU kernels, which must then be made for them: nothing falls back in silence.

    Heads whose keys and values differ in width, as in latent attention (576 and 512), or that are very wide, are the
    reference's on a GPU too: as matrix products, which their many query heads a KV head fill.
    """
    if backend() == "reference" or is_for_products(k_pool.shape[2], v_pool.shape[2]):
        return False
    check_kernel(queries, k_pool, v_pool, block_size)
    return True


def _after(written: mx.array | None, array: mx.array) -> mx.array:
    """The same array, there when the pools are written: zero is added."""
    return array if written is None else array + written.astype(array.dtype)
