"""The attention functions on a GPU: which kernels run, in what shape, on which arrays. Knows no requests.

The signatures are those of `reference`; arrays arrive checked. R rows, H query heads, K KV heads, D the head's width.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_agent_kernels.loader import Body, Constants, backend, load_kernel

# Threadgroups that fill a GPU, and tokens for which a split is worth its merge: CUDA's as measured on an H200.
_ENOUGH_GROUPS = {"cuda": 128, "metal": 512}
_MIN_SPLIT = {"cuda": 1024, "metal": 256}
_MAX_UNSPLIT = 8192  # tokens of one threadgroup: beside short rows a longer one would run alone in the end
_MAX_SPLITS = 32

_MERGE_WARPS = 4
_GATHER_THREADS = 256
_GATHER_INPUTS: tuple[str, ...] = ("k_pool", "v_pool", "block_table")
_GATHER_OUTPUTS: tuple[str, ...] = ("keys", "values")
_SOFTMAX_WARPS = 8
_MAX_TILE_HEADS = 4
_MAX_SHARED_FLOATS = 4096  # 16 KB of the 32 that Metal allows: two threadgroups fit at once


class Work(NamedTuple):
    """How a threadgroup of paged_attention shares one KV head's work; README.md in src/ says what each means."""

    lanes: int
    unroll: int
    head_tiles: int
    tile_heads: int
    streams: int

    @property
    def num_threads(self) -> int:
        """Threads a threadgroup."""
        return 32 * self.head_tiles * self.streams


def share_work(dialect: str, dtype: mx.Dtype, dim: int, group: int) -> Work:
    """The shape of the work that keeps a lane's queries, sums and loads in its registers.

    On an H200, for two query heads a KV head of 128: 8 tokens in flight read 4.3 TB/s, 4 tokens 3.2; for one and for
    four heads 4 tokens are best (4.3 and 3.8). Metal's 2 is what its smaller register file should hold, unmeasured.
    """
    head_tiles = -(-group // _MAX_TILE_HEADS)
    tile_heads = -(-group // head_tiles)
    streams = 8 // head_tiles
    while head_tiles * streams * tile_heads * dim > _MAX_SHARED_FLOATS and streams > 1:
        streams //= 2
    unroll = 2 if dialect == "metal" else 8 if tile_heads == 2 and dtype != mx.float32 else 4
    return Work(1 << (dim // 8 - 1).bit_length(), unroll, head_tiles, tile_heads, streams)


def count_splits(dialect: str, rows: int, kv_heads: int, max_tokens: int) -> int:
    """Splits of every row's tokens, a power of two: what fills the GPU, but no crumbs, and no row too long for one."""
    filling = min(_ENOUGH_GROUPS[dialect] // (rows * kv_heads), max_tokens // _MIN_SPLIT[dialect])
    wanted = min(max(filling, max_tokens // _MAX_UNSPLIT, 1), _MAX_SPLITS)
    return 1 << wanted.bit_length() - 1


def paged_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None,
    sinks: mx.array | None,
    softcap: float | None,
) -> tuple[mx.array, mx.array]:
    """See reference.paged_attention; always with the log-sum-exp, a float a head."""
    rows, kv_heads = len(queries), k_pool.shape[1]
    tokens = block_tables.shape[1] * block_size
    splits = count_splits(backend(), rows, kv_heads, tokens if window is None else min(window, tokens))
    options = Options(float(scale), block_size, window or 0, float(softcap or 0.0))
    parts = _attend_rows(queries, k_pool, v_pool, block_tables, seq_lens, sinks, options, splits, is_partial=splits > 1)
    return parts if splits == 1 else _merge(*parts, queries.dtype, kv_heads)


def shared_prefix_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    prefix_table: mx.array,
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
) -> mx.array:
    """See reference.shared_prefix_attention: the prefix by two matrix products over all rows' queries side by side."""
    rows, kv_heads = len(queries), k_pool.shape[1]
    keys, values, grouped = _gather_heads(k_pool, v_pool, prefix_table, block_size, queries)
    weights, prefix_lse = _softmax(grouped @ keys.swapaxes(1, 2), scale, queries.dtype)

    splits = count_splits(backend(), rows, kv_heads, block_tables.shape[1] * block_size)
    options = Options(float(scale), block_size, 0, 0.0)
    own = _attend_rows(queries, k_pool, v_pool, block_tables, seq_lens, None, options, splits, is_partial=True)
    return _merge(*own, queries.dtype, kv_heads, prefix=(weights @ values, prefix_lse))[0]


def chunk_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    block_table: mx.array,
    seq_len: int,
    *,
    scale: float,
    block_size: int,
) -> mx.array:
    """See reference.chunk_attention: the sequence's blocks gathered once, then MLX's own causal attention."""
    keys, values = _gather_heads(k_pool, v_pool, block_table, block_size)
    own = (queries.swapaxes(0, 1)[None], keys[None, :, :seq_len], values[None, :, :seq_len])
    return mx.fast.scaled_dot_product_attention(*own, scale=scale, mask="causal")[0].swapaxes(0, 1)


def _gather_heads(
    k_pool: mx.array, v_pool: mx.array, block_table: mx.array, block_size: int, queries: mx.array | None = None
) -> list[mx.array]:
    """Keys and values of a (P,) table's blocks, (K, P * block_size, D) each, and of (R, H, D) queries (K, R * G, D)."""
    (_, kv_heads, dim), num_blocks = k_pool.shape, len(block_table)
    eights = block_size * kv_heads * (dim // 8)  # of one block
    shapes = [(kv_heads, num_blocks * block_size, dim)] * 2
    inputs, names, outputs = [k_pool, v_pool, block_table.astype(mx.int32)], _GATHER_INPUTS, _GATHER_OUTPUTS
    group = 1
    if queries is not None:
        inputs, names, outputs = [*inputs, queries], (*names, "queries"), (*outputs, "grouped")
        group = queries.shape[1] // kv_heads
        shapes.append((kv_heads, len(queries) * group, dim))
        num_blocks += -(-len(queries) * group // block_size)
    constants = (
        *_sizes(k_pool, group),
        ("BLOCK_SIZE", block_size),
        ("HAS_QUERIES", queries is not None),
        ("GATHER_THREADS", _GATHER_THREADS),
    )
    return load_kernel(Body("gather_heads", names, outputs), backend(), k_pool.dtype, (), constants)(
        inputs=inputs,
        grid=(-(-eights // _GATHER_THREADS) * _GATHER_THREADS, num_blocks, 1),
        threadgroup=(_GATHER_THREADS, 1, 1),
        output_shapes=shapes,
        output_dtypes=[k_pool.dtype] * len(shapes),
    )


class Options(NamedTuple):
    """What a paged kernel is compiled for beside the arrays' shapes; 0 is none."""

    scale: float
    block_size: int
    window: int
    softcap: float


def _attend_rows(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    block_tables: mx.array,
    seq_lens: mx.array,
    sinks: mx.array | None,
    options: Options,
    splits: int,
    *,
    is_partial: bool,
) -> tuple[mx.array, mx.array]:
    """Launch paged_attention: (R, H, S, D) and (R, H, S) float32 parts, or the final (R, H, D) and (R, H)."""
    (rows, heads, dim), kv_heads = queries.shape, k_pool.shape[1]
    dialect, group = backend(), heads // kv_heads
    work = share_work(dialect, queries.dtype, dim, group)
    constants = _paged_constants(dialect, options, work, _sizes(k_pool, group), sinks is not None, is_partial)
    inputs = [queries, k_pool, v_pool, block_tables.astype(mx.int32), seq_lens.astype(mx.int32)]
    names: tuple[str, ...] = ("queries", "k_pool", "v_pool", "block_tables", "seq_lens")
    if sinks is not None:
        inputs, names = [*inputs, sinks], (*names, "sinks")
    body = Body("paged_attention", names, ("out", "lse"))
    extra_types = () if sinks is None else (sinks.dtype,)
    each = (rows, heads, splits) if is_partial else (rows, heads)
    out, lse = load_kernel(body, dialect, queries.dtype, extra_types, constants)(
        inputs=inputs,
        grid=(work.num_threads * kv_heads, splits, rows),
        threadgroup=(work.num_threads, 1, 1),
        output_shapes=[(*each, dim), each],
        output_dtypes=[mx.float32 if is_partial else queries.dtype, mx.float32],
    )
    return out, lse


def _paged_constants(
    dialect: str, options: Options, work: Work, sizes: Constants, has_sinks: bool, is_partial: bool
) -> Constants:
    return (
        *sizes,
        ("BLOCK_SIZE", options.block_size),
        ("SCALE", options.scale),
        ("HAS_SOFTCAP", options.softcap > 0),
        ("SOFTCAP", options.softcap),
        ("HAS_WINDOW", options.window > 0),
        ("WINDOW", options.window),
        ("HAS_SINKS", has_sinks),
        ("PARTIAL", is_partial),
        ("LANES", work.lanes),
        ("UNROLL", work.unroll),
        ("HEAD_TILES", work.head_tiles),
        ("TILE_HEADS", work.tile_heads),
        ("STREAMS", work.streams),
        ("MIN_SPLIT", _MIN_SPLIT[dialect]),
    )


def _merge(
    partials: mx.array,
    partial_lse: mx.array,
    dtype: mx.Dtype,
    kv_heads: int,
    prefix: tuple[mx.array, mx.array] | None = None,
) -> tuple[mx.array, mx.array]:
    """Join (R, H, S, D) parts, and a prefix's (K, R * G, D) with its (K * R * G,) log-sum-exp: (R, H, D), (R, H)."""
    rows, heads, _, dim = partials.shape
    names = ("partials", "partial_lse", *(() if prefix is None else ("prefix_out", "prefix_lse")))
    sizes = (("HEAD_DIM", dim), ("KV_HEADS", kv_heads), ("GROUP", heads // kv_heads))
    constants = (*sizes, ("HAS_PREFIX", prefix is not None), ("MERGE_WARPS", _MERGE_WARPS))
    body = Body("merge_splits", names, ("out", "lse"))
    out, lse = load_kernel(body, backend(), dtype, (), constants)(
        inputs=[partials, partial_lse, *(prefix or ())],
        grid=(32 * _MERGE_WARPS * -(-rows * heads // _MERGE_WARPS), 1, 1),
        threadgroup=(32 * _MERGE_WARPS, 1, 1),
        output_shapes=[(rows, heads, dim), (rows, heads)],
        output_dtypes=[dtype, mx.float32],
    )
    return out, lse


def _softmax(scores: mx.array, scale: float, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Weights in `dtype`, of the scores' shape (K, N, L), and the (K * N,) natural log-sum-exp of scale * scores."""
    flat = scores.reshape(-1, scores.shape[-1])
    body = Body("softmax_scores", ("scores",), ("weights", "lse"))
    constants = (("SCALE", float(scale)), ("SOFTMAX_WARPS", _SOFTMAX_WARPS))
    weights, lse = load_kernel(body, backend(), dtype, (scores.dtype,), constants)(
        inputs=[flat],
        grid=(32 * _SOFTMAX_WARPS * len(flat), 1, 1),
        threadgroup=(32 * _SOFTMAX_WARPS, 1, 1),
        output_shapes=[flat.shape, (len(flat),)],
        output_dtypes=[dtype, mx.float32],
    )
    return weights.reshape(scores.shape), lse


def _sizes(k_pool: mx.array, group: int) -> Constants:
    return (("HEAD_DIM", k_pool.shape[2]), ("KV_HEADS", k_pool.shape[1]), ("GROUP", group))
