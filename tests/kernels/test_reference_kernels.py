"""The reference kernels against plain numpy in float64: over types, GQA, ragged lengths and block edges."""

import math

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_kernels import SharedLevel, reference
from tests.support.search import examples

Array = npt.NDArray[np.float64]
TOLERANCE = {mx.float32: 2e-5, mx.float16: 4e-3, mx.bfloat16: 4e-2}
SCALE = 0.3


def attention(query: Array, keys: Array, values: Array) -> Array:
    """(H, D) over (L, K, D): query head h reads key-value head h // (H / K)."""
    group = query.shape[0] // keys.shape[1]
    out = np.zeros((query.shape[0], values.shape[2]))
    for head in range(query.shape[0]):
        scores = keys[:, head // group] @ query[head] * SCALE
        weights = np.exp(scores - scores.max())
        out[head] = weights @ values[:, head // group] / weights.sum()
    return out


class Pools:
    """Random pools in which every sequence owns scattered blocks."""

    def __init__(
        self, *, kv_heads: int = 2, dim: int = 8, value_dim: int = 8, block_size: int = 4, dtype: mx.Dtype = mx.float32
    ):
        rng = np.random.default_rng(0)
        self.block_size, self.dtype = block_size, dtype
        self.keys = mx.array(rng.normal(size=(64 * block_size, kv_heads, dim)).astype(np.float32)).astype(dtype)
        self.values = mx.array(rng.normal(size=(64 * block_size, kv_heads, value_dim)).astype(np.float32)).astype(dtype)
        self.free = rng.permutation(64).tolist()
        self.rng = rng

    def table(self, num_tokens: int) -> list[int]:
        return [self.free.pop() for _ in range(-(-num_tokens // self.block_size))]

    def queries(self, count: int, heads: int) -> mx.array:
        dim = self.keys.shape[2]
        return mx.array(self.rng.normal(size=(count, heads, dim)).astype(np.float32)).astype(self.dtype)

    def read(self, table: list[int], length: int) -> tuple[Array, Array]:
        slots = [table[i // self.block_size] * self.block_size + i % self.block_size for i in range(length)]
        return as_float64(self.keys)[slots], as_float64(self.values)[slots]


def as_float64(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def padded(tables: list[list[int]], fill: int = 0) -> mx.array:
    width = max(map(len, tables))
    return mx.array(np.array([table + [fill] * (width - len(table)) for table in tables], dtype=np.int32))


def one_group(prefix: list[int], num_rows: int) -> SharedLevel[mx.array]:
    rows = mx.arange(num_rows)
    return SharedLevel(mx.array([prefix]), mx.array([4 * len(prefix)]), rows[None], rows)


def assert_close(actual: mx.array, expected: Array, dtype: mx.Dtype) -> None:
    assert actual.dtype == dtype
    np.testing.assert_allclose(as_float64(actual), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_paged_attention_of_ragged_rows_is_attention_over_their_own_tokens(
    heads: int, kv_heads: int, dtype: mx.Dtype
) -> None:
    pools, lengths = Pools(kv_heads=kv_heads, dtype=dtype), [1, 3, 4, 5, 8, 17, 31]
    tables = [pools.table(length) for length in lengths]
    queries = pools.queries(len(lengths), heads)
    out, _ = reference.paged_attention(
        queries, pools.keys, pools.values, padded(tables), mx.array(lengths), scale=SCALE, block_size=4
    )
    each = zip(as_float64(queries), tables, lengths, strict=True)
    assert_close(out, np.stack([attention(query, *pools.read(table, n)) for query, table, n in each]), dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("num_prefix_blocks", [1, 5])
def test_attention_with_a_shared_prefix_equals_attention_over_the_whole_sequence(
    num_prefix_blocks: int, heads: int, kv_heads: int, dtype: mx.Dtype
) -> None:
    pools, lengths = Pools(kv_heads=kv_heads, dtype=dtype), [1, 4, 5, 9]
    prefix = pools.table(num_prefix_blocks * 4)
    tables = [pools.table(length) for length in lengths]
    queries = pools.queries(len(lengths), heads)
    out = reference.shared_prefix_attention(
        queries,
        pools.keys,
        pools.values,
        [one_group(prefix, len(lengths))],
        padded(tables),
        mx.array(lengths),
        scale=SCALE,
        block_size=4,
    )
    each = zip(as_float64(queries), tables, lengths, strict=True)
    expected = [attention(query, *pools.read(prefix + table, len(prefix) * 4 + n)) for query, table, n in each]
    assert_close(out, np.stack(expected), dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize(("count", "seq_len"), [(1, 1), (1, 5), (3, 3), (4, 16), (16, 16), (7, 22)])
def test_a_prompt_chunk_sees_what_lies_before_it_and_itself_causally(
    count: int, seq_len: int, heads: int, kv_heads: int, dtype: mx.Dtype
) -> None:
    pools = Pools(kv_heads=kv_heads, dtype=dtype)
    table, queries = pools.table(seq_len), pools.queries(count, heads)
    out = reference.chunk_attention(
        queries, pools.keys, pools.values, mx.array(table), seq_len, scale=SCALE, block_size=4
    )
    expected = [
        attention(query, *pools.read(table, seq_len - count + index + 1))
        for index, query in enumerate(as_float64(queries))
    ]
    assert_close(out, np.stack(expected), dtype)


def test_values_may_be_of_another_width_than_keys() -> None:
    pools = Pools(dim=8, value_dim=6)
    table, queries = pools.table(9), pools.queries(1, 4)
    out, _ = reference.paged_attention(
        queries, pools.keys, pools.values, mx.array([table]), mx.array([9]), scale=SCALE, block_size=4
    )
    assert_close(out, attention(as_float64(queries)[0], *pools.read(table, 9))[None], mx.float32)


@settings(max_examples=examples(50))
@given(st.integers(1, 6), st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 9))
def test_padding_and_neighbours_never_leak_into_a_row(block_size: int, lengths: list[int], fill: int) -> None:
    pools = Pools(block_size=block_size)
    tables, queries = [pools.table(length) for length in lengths], pools.queries(len(lengths), 4)
    together, _ = reference.paged_attention(
        queries, pools.keys, pools.values, padded(tables, fill), mx.array(lengths), scale=SCALE, block_size=block_size
    )
    for index, length in enumerate(lengths):
        alone, _ = reference.paged_attention(
            queries[index : index + 1],
            pools.keys,
            pools.values,
            mx.array([tables[index]]),
            mx.array([length]),
            scale=SCALE,
            block_size=block_size,
        )
        np.testing.assert_allclose(np.array(together[index]), np.array(alone[0]), atol=1e-6)


def test_large_scores_do_not_overflow_where_prefix_and_own_part_are_merged() -> None:
    pools = Pools()
    prefix, own = pools.table(8), pools.table(3)
    queries = pools.queries(1, 4) * 1000
    out = reference.shared_prefix_attention(
        queries,
        pools.keys,
        pools.values,
        [one_group(prefix, 1)],
        mx.array([own]),
        mx.array([3]),
        scale=SCALE,
        block_size=4,
    )
    assert_close(out, attention(as_float64(queries)[0], *pools.read(prefix + own, 11))[None], mx.float32)


def test_write_kv_sets_the_named_slots_and_leaves_all_others() -> None:
    pool = mx.zeros((8, 2, 3))
    written = np.array(
        reference.write_kv(pool, mx.array([6, 1]), mx.ones((2, 2, 3)) * mx.array([5, 7]).reshape(2, 1, 1))
    )
    assert written[:, 0, 0].tolist() == [0, 7, 0, 0, 0, 0, 5, 0]
    assert (written == written[:, :1, :1]).all()


@settings(max_examples=examples(100))
@given(st.integers(1, 100), st.data())
def test_the_bitmask_leaves_allowed_logits_as_they_are_and_forbids_all_others(size: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sets(st.integers(0, size - 1)), min_size=1, max_size=3))
    bits = np.zeros((len(rows), -(-size // 32) * 32), dtype=np.uint8)
    for index, allowed in enumerate(rows):
        bits[index, list(allowed)] = 1
    logits = np.random.default_rng(size).normal(size=(len(rows), size)).astype(np.float32)
    bitmask = np.packbits(bits, axis=1, bitorder="little").view(np.int32)
    masked = np.array(reference.apply_token_bitmask(mx.array(logits), mx.array(bitmask)))
    is_allowed = bits[:, :size].astype(bool)
    assert (masked[is_allowed] == logits[is_allowed]).all()
    assert (masked[~is_allowed] == -math.inf).all()
