"""The attention functions on a GPU: which kernels run, in what shape, on which arrays. Knows no requests.

The signatures are those of `reference`; arrays arrive checked. R rows, H query heads, K KV heads, D the head's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import mlx.core as mx

from mlx_agent_kernels.levels import SharedLevel, first_seen
from mlx_agent_kernels.loader import Body, Constants, backend, load_kernel
from mlx_agent_kernels.reference import first_block_seen

# Threadgroups that fill a GPU, and tokens for which a split is worth its merge: CUDA's as measured on an H200.
_ENOUGH_GROUPS = {"cuda": 128, "metal": 512}
_MIN_SPLIT = {"cuda": 1024, "metal": 256}
_MAX_UNSPLIT = 8192  # tokens of one threadgroup: beside short rows a longer one would run alone in the end
_MAX_SPLITS = 32

_MERGE_WARPS = 4
_GATHER_THREADS = 256
_GATHER_INPUTS: tuple[str, ...] = ("k_pool", "v_pool", "block_tables", "queries")
_GATHER_OUTPUTS: tuple[str, ...] = ("keys", "values")
_SOFTMAX_INPUTS: tuple[str, ...] = ("scores", "seq_lens")
_SOFTMAX_WARPS = 8
_SHARED_INPUTS: tuple[str, ...] = ("queries", "k_pool", "v_pool", "block_tables", "seq_lens", "members")
_MAX_SHARED_WARPS = 8
_ENOUGH_SHARED_WARPS = 1024
_ENOUGH_SHARED_GROUPS = 512  # threadgroups, where they have few warps
_MAX_SHARED_SPLITS = 16
_MIN_SHARED_SPLIT = 128  # tokens
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
    levels: Sequence[SharedLevel[mx.array]],
    block_tables: mx.array,
    seq_lens: mx.array,
    *,
    scale: float,
    block_size: int,
    window: int | None,
    sinks: mx.array | None,
    softcap: float | None,
) -> mx.array:
    """See reference.shared_prefix_attention: a level is two matrix products over its members' queries side by side."""
    rows, kv_heads = len(queries), k_pool.shape[1]
    options = Options(float(scale), block_size, window or 0, float(softcap or 0.0))
    firsts = [None] * len(levels) if window is None else first_seen(levels, seq_lens, window)
    shared = [
        _attend_level(queries, k_pool, v_pool, level, first, options)
        for level, first in zip(levels, firsts, strict=True)
    ]
    tokens = block_tables.shape[1] * block_size
    splits = count_splits(backend(), rows, kv_heads, tokens if window is None else min(window, tokens))
    own = _attend_rows(queries, k_pool, v_pool, block_tables, seq_lens, sinks, options, splits, is_partial=True)
    return _merge(*own, queries.dtype, kv_heads, shared)[0]


def _attend_level(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    level: SharedLevel[mx.array],
    first: mx.array | None,
    options: Options,
) -> tuple[mx.array, mx.array, mx.array]:
    """(G, K, M * H / K, S, D) attention of members over what they share, its (..., S) log2-sum-exp, and (R,) places.

    first: (G, M) of its tokens that a member sees.
    """
    if backend() == "cuda" and queries.dtype in (mx.float16, mx.bfloat16) and queries.shape[2] in (64, 128):
        return *_launch_shared(queries, k_pool, v_pool, level, first, options), level.places
    keys, values, grouped = _gather_heads(k_pool, v_pool, level.block_tables, options.block_size, queries, level, first)
    scores = grouped @ keys.swapaxes(2, 3)
    weights, lse = _softmax(scores, level.seq_lens, first, options, queries.shape[1] // k_pool.shape[1], queries.dtype)
    return (weights @ values)[..., None, :], lse, level.places


def count_shared_splits(num_groups: int, warps: int, num_tokens: int) -> int:
    """Splits of groups' tokens, a power of two, for so many threadgroups that each have all of the tokens."""
    filling = min(_ENOUGH_SHARED_WARPS // warps, _ENOUGH_SHARED_GROUPS) // num_groups
    wanted = min(filling, num_tokens // _MIN_SHARED_SPLIT, _MAX_SHARED_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


def _launch_shared(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    level: SharedLevel[mx.array],
    first: mx.array | None,
    options: Options,
) -> tuple[mx.array, mx.array]:
    """The level in one launch: (G, K, M * H / K, S, D) float32 parts and their (..., S) log2-sum-exp."""
    (_, heads, dim), kv_heads = queries.shape, k_pool.shape[1]
    num_groups, num_queries = len(level.members), level.members.shape[1] * (heads // kv_heads)
    warps = min(-(-num_queries // 16), _MAX_SHARED_WARPS)
    blocks = kv_heads * -(-num_queries // (16 * warps))
    splits = count_shared_splits(blocks * num_groups, warps, level.block_tables.shape[1] * options.block_size)
    constants = (*_sizes(k_pool, heads // kv_heads), *_level_constants(options), ("BLOCK_SIZE", options.block_size))
    inputs, names = [queries, k_pool, v_pool, level.block_tables, level.seq_lens, level.members], _SHARED_INPUTS
    if first is not None:
        inputs, names = [*inputs, first], (*names, "firsts")
    each = (num_groups, kv_heads, num_queries, splits)
    out, lse = load_kernel(Body("shared_attention", names, ("out", "lse")), "cuda", queries.dtype, (), constants)(
        inputs=inputs,
        grid=(32 * warps * blocks, splits, num_groups),
        threadgroup=(32 * warps, 1, 1),
        output_shapes=[(*each, dim), each],
        output_dtypes=[mx.float32, mx.float32],
    )
    return out, lse


def chunk_attention(
    queries: mx.array,
    k_pool: mx.array,
    v_pool: mx.array,
    block_table: mx.array,
    seq_len: int,
    *,
    scale: float,
    block_size: int,
    window: int | None,
    sinks: mx.array | None,
) -> mx.array:
    """See reference.chunk_attention: the blocks that are seen gathered once, then MLX's own attention; no softcap."""
    num_unseen = first_block_seen(seq_len - len(queries), window, block_size)
    block_table, seq_len = block_table[num_unseen:], seq_len - num_unseen * block_size
    keys, values = _gather_heads(k_pool, v_pool, block_table[None], block_size, queries)
    own = (queries.swapaxes(0, 1)[None], keys[:, :, :seq_len], values[:, :, :seq_len])
    mask: mx.array | Literal["causal"] = "causal"
    if window is not None and window < seq_len:
        distances = mx.arange(seq_len - len(queries), seq_len)[:, None] - mx.arange(seq_len)
        mask = (distances >= 0) & (distances < window)
    sinks = None if sinks is None else sinks.astype(queries.dtype)
    return mx.fast.scaled_dot_product_attention(*own, scale=scale, mask=mask, sinks=sinks)[0].swapaxes(0, 1)


def _gather_heads(
    k_pool: mx.array,
    v_pool: mx.array,
    block_tables: mx.array,
    block_size: int,
    queries: mx.array,
    level: SharedLevel[mx.array] | None = None,
    first: mx.array | None = None,
) -> list[mx.array]:
    """Keys and values of (G, P) tables, (G, K, P * block_size, D) each, and members' queries (G, K, M * H / K, D).

    The queries are an input in any case: where the pools are written in place, what reads them waits for the queries.
    What no member of a group sees, and may be anything, is zero.
    """
    (_, kv_heads, dim), (num_groups, num_blocks) = k_pool.shape, block_tables.shape
    eights = block_size * kv_heads * (dim // 8)  # of one block
    shapes, outputs = [(num_groups, kv_heads, num_blocks * block_size, dim)] * 2, _GATHER_OUTPUTS
    inputs, names = [k_pool, v_pool, block_tables.astype(mx.int32), queries], _GATHER_INPUTS
    group = queries.shape[1] // kv_heads
    if level is not None:
        num_members = level.members.shape[1]
        shapes, outputs = [*shapes, (num_groups, kv_heads, num_members * group, dim)], (*outputs, "grouped")
        inputs, names = [*inputs, level.members, level.seq_lens], (*names, "members", "seq_lens")
        num_blocks += -(-num_members * group // block_size)
    if first is not None:
        inputs, names = [*inputs, first.min(axis=1)], (*names, "group_firsts")
    constants = (
        *_sizes(k_pool, group),
        ("BLOCK_SIZE", block_size),
        ("HAS_MEMBERS", level is not None),
        ("HAS_WINDOW", first is not None),
        ("GATHER_THREADS", _GATHER_THREADS),
    )
    return load_kernel(Body("gather_heads", names, outputs), backend(), k_pool.dtype, (), constants)(
        inputs=inputs,
        grid=(-(-eights // _GATHER_THREADS) * _GATHER_THREADS, num_blocks, num_groups),
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
    shared: Sequence[tuple[mx.array, mx.array, mx.array]] = (),
) -> tuple[mx.array, mx.array]:
    """Join (R, H, S, D) parts, and the levels' parts as _attend_level gives them: (R, H, D), (R, H)."""
    rows, heads, _, dim = partials.shape
    names = ["partials", "partial_lse"]
    for index in range(len(shared)):
        names += [f"prefix_out_{index}", f"prefix_lse_{index}", f"places_{index}"]
    sizes = (("HEAD_DIM", dim), ("KV_HEADS", kv_heads), ("GROUP", heads // kv_heads))
    constants = (*sizes, ("LEVELS", len(shared)), ("MERGE_WARPS", _MERGE_WARPS))
    body = Body("merge_splits", tuple(names), ("out", "lse"))
    out, lse = load_kernel(body, backend(), dtype, (), constants)(
        inputs=[partials, partial_lse, *(array for part in shared for array in part)],
        grid=(32 * _MERGE_WARPS * -(-rows * heads // _MERGE_WARPS), 1, 1),
        threadgroup=(32 * _MERGE_WARPS, 1, 1),
        output_shapes=[(rows, heads, dim), (rows, heads)],
        output_dtypes=[dtype, mx.float32],
    )
    return out, lse


def _softmax(
    scores: mx.array, seq_lens: mx.array, first: mx.array | None, options: Options, group: int, dtype: mx.Dtype
) -> tuple[mx.array, mx.array]:
    """Weights in `dtype`, of the scores' shape (G, K, M * group, L), and the log2-sum-exp of all of a row's scores.

    Only a group's first seq_lens scores count, (G,), and of a member those from its `first` on, (G, M).
    """
    flat = scores.reshape(-1, scores.shape[-1])
    inputs, names = [flat, seq_lens], _SOFTMAX_INPUTS
    constants: Constants = (*_level_constants(options), ("SOFTMAX_WARPS", _SOFTMAX_WARPS))
    if first is not None:
        inputs, names = [*inputs, first], (*names, "firsts")
        constants = (*constants, ("GROUP", group))
    body = Body("softmax_scores", names, ("weights", "lse"))
    weights, lse = load_kernel(body, backend(), dtype, (scores.dtype,), constants)(
        inputs=inputs,
        grid=(32 * _SOFTMAX_WARPS * len(flat), 1, 1),
        threadgroup=(32 * _SOFTMAX_WARPS, 1, 1),
        output_shapes=[flat.shape, (len(flat),)],
        output_dtypes=[dtype, mx.float32],
    )
    return weights.reshape(scores.shape), lse


def _level_constants(options: Options) -> Constants:
    return (
        ("SCALE", options.scale),
        ("HAS_SOFTCAP", options.softcap > 0),
        ("SOFTCAP", options.softcap),
        ("HAS_WINDOW", options.window > 0),
    )


def _sizes(k_pool: mx.array, group: int) -> Constants:
    return (("HEAD_DIM", k_pool.shape[2]), ("KV_HEADS", k_pool.shape[1]), ("GROUP", group))
