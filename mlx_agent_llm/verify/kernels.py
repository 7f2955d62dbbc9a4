"""Every function of mlx_agent_kernels on this device beside its reference in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx

from mlx_agent_kernels import (
    HeadOptions,
    Norm,
    QuantizedWeight,
    SharedLevel,
    Weight,
    backend,
    chunk_attention,
    paged_attention,
    project,
    reference,
    rotate_and_write,
    shared_prefix_attention,
    write_pools,
)
from mlx_agent_kernels.heads import rotate_and_write_reference
from mlx_agent_kernels.projections import project_reference
from mlx_agent_llm.verify.comparison import Comparison, compare

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
_BLOCK_SIZE = 16
_HEAD_SHAPES = ((16, 8, 128), (14, 2, 64))  # query heads, KV heads, width: Qwen3-0.6B's and Qwen2.5-0.5B's
_LENGTHS = (1, 16, 17, 300, 1500)  # of rows; the last ones are read in several parts on a GPU
_NUM_COMMON = 2  # blocks that rows share
_CHUNK = 200  # tokens
_WIDTH, _FEATURES, _GROUP_SIZE = 512, 1024, 64  # of a product
_ROWS = (1, 16, 64)


def compare_kernels() -> Iterator[Comparison]:
    """Each function in each type, with its options."""
    for dtype in DTYPES:
        for heads, kv_heads, dim in _HEAD_SHAPES:
            yield from _compare_attention(_Arrays(heads, kv_heads, dim, dtype))
        yield from _compare_writes(_Arrays(*_HEAD_SHAPES[0], dtype))
        yield from _compare_products(dtype)


def tolerance_of(dtype: mx.Dtype) -> float:
    """What rounding may make; products of float32 keep 10 bits of their factors on some GPUs."""
    if dtype == mx.float32:
        return 1e-4 if backend() == "reference" else 5e-3
    return 0.03


class _Arrays:
    """Random numbers in one type: pools, and what rows and chunks read of them."""

    def __init__(self, heads: int, kv_heads: int, dim: int, dtype: mx.Dtype) -> None:
        self.heads, self.kv_heads, self.dim, self.dtype = heads, kv_heads, dim, dtype
        self.shape = f"{heads} over {kv_heads} heads of {dim}"
        width = -(-max(_LENGTHS) // _BLOCK_SIZE)
        blocks = mx.random.permutation(len(_LENGTHS) * width, key=mx.random.key(1)).astype(mx.int32)
        self.tables = blocks.reshape(len(_LENGTHS), width)
        self.lengths = mx.array(_LENGTHS, dtype=mx.int32)
        self.pools = [normal(dtype, seed, blocks.size * _BLOCK_SIZE, kv_heads, dim) for seed in (2, 3)]
        self.queries, self.chunk = normal(dtype, 4, len(_LENGTHS), heads, dim), normal(dtype, 5, _CHUNK, heads, dim)
        self.sinks = normal(dtype, 6, heads)
        mx.eval(self.tables, self.lengths, self.pools, self.queries, self.chunk, self.sinks)

    @property
    def level(self) -> SharedLevel[mx.array]:
        """Blocks that all rows have in common."""
        members = mx.arange(len(_LENGTHS), dtype=mx.int32)
        num_tokens = mx.array([_NUM_COMMON * _BLOCK_SIZE], dtype=mx.int32)
        return SharedLevel(self.tables[-1:, :_NUM_COMMON], num_tokens, members[None], members)


def normal(dtype: mx.Dtype, seed: int, *shape: int) -> mx.array:
    """Random numbers around zero."""
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def _compare_attention(arrays: _Arrays) -> Iterator[Comparison]:
    plain: dict[str, Any] = {"scale": arrays.dim**-0.5, "block_size": _BLOCK_SIZE}
    capped: dict[str, Any] = plain | {"window": 100, "sinks": arrays.sinks, "softcap": 20.0}
    rows, chunk = (arrays.tables, arrays.lengths), (arrays.tables[-1], _LENGTHS[-1])
    cases: list[tuple[str, Any, Any, mx.array, tuple[Any, ...], dict[str, Any]]] = []
    for suffix, options in (("", plain), (", window, sinks and softcap", capped)):
        cases += [
            ("paged_attention" + suffix, paged_attention, reference.paged_attention, arrays.queries, rows, options),
            (
                "shared_prefix_attention" + suffix,
                shared_prefix_attention,
                reference.shared_prefix_attention,
                arrays.queries,
                ([arrays.level], *rows),
                options,
            ),
            ("chunk_attention" + suffix, chunk_attention, reference.chunk_attention, arrays.chunk, chunk, options),
        ]
    exact_pools = [pool.astype(mx.float32) for pool in arrays.pools]
    for name, function, exact, queries, own, options in cases:
        expected = exact(queries.astype(mx.float32), *exact_pools, *own, **options)
        yield compare(
            f"{name}, {arrays.shape}",
            arrays.dtype,
            tolerance_of(arrays.dtype),
            partial(_attended, function, queries, arrays.pools, own, options),
            [expected[0] if isinstance(expected, tuple) else expected],
        )


def _attended(
    function: Any, queries: mx.array, pools: Sequence[mx.array], own: tuple[Any, ...], options: dict[str, Any]
) -> list[mx.array]:
    return [function(queries, *pools, *own, **options)]


def _compare_writes(arrays: _Arrays) -> Iterator[Comparison]:
    """Both writers, with the queries that one of them makes."""
    slots = (arrays.tables[:, 0] * _BLOCK_SIZE).astype(mx.int32)
    contents = [normal(arrays.dtype, seed, len(slots), arrays.kv_heads, arrays.dim) for seed in (7, 8)]

    def write() -> list[mx.array]:
        pools, written = write_pools([mx.array(pool) for pool in arrays.pools], slots, contents)
        mx.eval(pools if written is None else written)
        return [pool[slots] for pool in pools]

    yield compare(f"write_pools, {arrays.shape}", arrays.dtype, 0.0, write, contents)
    projected = normal(arrays.dtype, 9, len(slots), 1, (arrays.heads + 2 * arrays.kv_heads) * arrays.dim)
    positions = mx.array([0, 1, 7, 500, 30_000], dtype=mx.int32)
    frequencies = 10_000.0 ** -(mx.arange(0, arrays.dim, 2) / arrays.dim)
    norms = [normal(arrays.dtype, seed, arrays.dim) + 1 for seed in (10, 11)]
    options = HeadOptions(arrays.heads, frequencies, False, eps=1e-6)

    def rotate(function: Any, dtype: mx.Dtype) -> list[mx.array]:
        pools = [pool.astype(dtype) + 0 for pool in arrays.pools]
        own = options._replace(q_norm=norms[0].astype(dtype), k_norm=norms[1].astype(dtype))
        queries, *pools = function(projected.astype(dtype), positions, slots, *pools, own)
        mx.eval(queries)
        return [queries, *(pool[slots] for pool in pools)]

    expected = rotate(rotate_and_write_reference, mx.float32)
    name = f"rotate_and_write, norms, {arrays.shape}"
    tolerance = tolerance_of(arrays.dtype)
    yield compare(name, arrays.dtype, tolerance, lambda: rotate(rotate_and_write, arrays.dtype), expected)


def _compare_products(dtype: mx.Dtype) -> Iterator[Comparison]:
    """Few rows and many times weights, packed or not, with norm and gate, and with a residual."""
    norm = Norm(normal(dtype, 12, _WIDTH) + 1, 1e-6)
    exact_norm = norm._replace(weight=norm.weight.astype(mx.float32))
    for rows in _ROWS:
        x, residual = normal(dtype, 13, rows, 1, _WIDTH), normal(dtype, 14, rows, 1, _FEATURES)
        for form, weight in _weights(dtype):
            for name, added in (("residual", residual), ("gate", None)):
                exact_added = None if added is None else added.astype(mx.float32)
                exact: Any = {"norm": exact_norm, "residual": exact_added, "is_gated": added is None}
                own: Any = {"norm": norm, "residual": added, "is_gated": added is None}
                yield compare(
                    f"project, norm and {name}, {form}, {rows} rows",
                    dtype,
                    tolerance_of(dtype) if isinstance(weight, mx.array) else _packed_tolerance(dtype),
                    partial(_product, x, weight, own),
                    [project_reference(x.astype(mx.float32), _exact(weight), **exact)],
                )


def _product(x: mx.array, weight: Weight, options: Any) -> list[mx.array]:
    return [project(x, weight, **options)]


def _packed_tolerance(dtype: mx.Dtype) -> float:
    """MLX's product of packed weights on a CPU adds up in the type of the rows."""
    return 0.1 if dtype == mx.bfloat16 and backend() == "reference" else tolerance_of(dtype)


def _weights(dtype: mx.Dtype) -> Iterator[tuple[str, Weight]]:
    plain = normal(dtype, 15, _FEATURES, _WIDTH) / _WIDTH**0.5
    yield "elements", plain
    for bits in (4, 8):
        yield f"{bits} bits", QuantizedWeight(*mx.quantize(plain, _GROUP_SIZE, bits), _GROUP_SIZE, bits)


def _exact(weight: Weight) -> mx.array:
    if isinstance(weight, mx.array):
        return weight.astype(mx.float32)
    scales, biases = weight.scales.astype(mx.float32), weight.biases
    assert biases is not None
    return mx.dequantize(weight.packed, scales, biases.astype(mx.float32), weight.group_size, weight.bits)
