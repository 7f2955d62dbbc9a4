"""Paged attention against plain numpy in float64, every option over the grid of what the kernels serve.

On the CPU this tests the reference, on a GPU the kernels. What no row may see is poison: NaN, where a kernel runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import product

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlx_agent_kernels import (
    SharedLevel,
    backend,
    chunk_attention,
    gpu,
    paged_attention,
    reference,
    shared_prefix_attention,
)
from mlx_agent_kernels.checks import BLOCK_SIZES, DTYPES, HEAD_SIZES, MAX_GROUP, check_kernel
from mlx_agent_kernels.loader import kernel_text

Array = npt.NDArray[np.float64]
TOLERANCE = {mx.float32: 2e-4, mx.float16: 6e-3, mx.bfloat16: 5e-2}
POISON = 1e3 if backend() == "reference" else math.nan  # the reference multiplies masked slots by zero
# MLX multiplies float32 matrices with ten bits of mantissa on CUDA.
PRODUCT_TOLERANCE = TOLERANCE | {mx.float32: 2e-4 if backend() == "reference" else 2e-3}
NUM_KERNEL_BODIES = 8


@dataclass(frozen=True)
class Prefix:
    """One level: which group each row is in, and how many blocks each group shares."""

    groups: tuple[int | None, ...]
    num_blocks: tuple[int, ...]


FORESTS = {
    "two groups": (Prefix((0, 1, 0, 1, 1, 0), (3, 20)),),
    "a group and rows beside it": (Prefix((None, 0, None, 0, 0, None), (4,)),),
    "groups on a root": (Prefix((0,) * 6, (5,)), Prefix((0, 0, 1, 1, None, 1), (2, 7))),
    "pairs of levels that meet in some rows": (
        Prefix((0, 0, 0, None, None, None), (1,)),
        Prefix((None, 0, 0, 1, 1, None), (33, 2)),
    ),
}


@dataclass
class Case:
    """Rows of random tokens in scattered blocks, in pools that are poison everywhere else."""

    lengths: list[int]
    dim: int = 64
    kv_heads: int = 2
    group: int = 2
    block_size: int = 16
    dtype: mx.Dtype = mx.float32
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    prefixes: tuple[Prefix, ...] = ()  # of levels
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.scale = self.dim**-0.5
        widths = [-(-length // self.block_size) for length in self.lengths]
        num_blocks = sum(widths) + sum(sum(prefix.num_blocks) for prefix in self.prefixes) + 2
        ids = self.rng.permutation(num_blocks).tolist()
        self.nobodys = ids.pop()
        self.shared = [[[ids.pop() for _ in range(n)] for n in prefix.num_blocks] for prefix in self.prefixes]
        self.tables = [[ids.pop() for _ in range(width)] for width in widths]
        shape = (num_blocks * self.block_size, self.kv_heads, self.dim)
        self.keys, self.values = np.full(shape, POISON, np.float32), np.full(shape, POISON, np.float32)
        seen = sorted({slot for row in range(len(self.lengths)) for slot in self._seen_slots(row)})
        self.keys[seen], self.values[seen] = (self._random(len(seen), *shape[1:]) for _ in range(2))
        self.queries = self._random(len(self.lengths), self.kv_heads * self.group, self.dim)
        self.sinks = self._random(self.kv_heads * self.group) if self.has_sinks else None

    def _random(self, *shape: int) -> npt.NDArray[np.float32]:
        """Values that the case's type holds exactly."""
        return np.array(mx.array(self.rng.normal(size=shape).astype(np.float32)).astype(self.dtype).astype(mx.float32))

    def slots(self, table: list[int], begin: int, end: int) -> list[int]:
        return [table[i // self.block_size] * self.block_size + i % self.block_size for i in range(begin, end)]

    def _seen_slots(self, row: int) -> list[int]:
        slots = self._prefix_slots(row) + self.slots(self.tables[row], 0, self.lengths[row])
        return slots if self.window is None else slots[-self.window :]

    def array(self, values: npt.NDArray[np.float32]) -> mx.array:
        return mx.array(values).astype(self.dtype)

    @property
    def block_tables(self) -> mx.array:
        width = max(map(len, self.tables)) + 1
        return mx.array(np.array([table + [self.nobodys] * (width - len(table)) for table in self.tables], np.int32))

    def run(self) -> tuple[mx.array, mx.array]:
        return paged_attention(
            self.array(self.queries),
            self.array(self.keys),
            self.array(self.values),
            self.block_tables,
            mx.array(self.lengths),
            scale=self.scale,
            block_size=self.block_size,
            window=self.window,
            sinks=None if self.sinks is None else self.array(self.sinks),
            softcap=self.softcap,
            return_lse=True,
        )

    def run_shared(self) -> mx.array:
        return shared_prefix_attention(
            self.array(self.queries),
            self.array(self.keys),
            self.array(self.values),
            self.levels,
            self.block_tables,
            mx.array(self.lengths),
            scale=self.scale,
            block_size=self.block_size,
            window=self.window,
            sinks=None if self.sinks is None else self.array(self.sinks),
            softcap=self.softcap,
        )

    @property
    def levels(self) -> list[SharedLevel[mx.array]]:
        """With a block, a member and a group more than there are."""
        return [self._level(prefix.groups, tables) for prefix, tables in zip(self.prefixes, self.shared, strict=True)]

    def _level(self, groups: tuple[int | None, ...], tables: list[list[int]]) -> SharedLevel[mx.array]:
        members = [[row for row, own in enumerate(groups) if own == group] for group in range(len(tables))]
        width, most = max(map(len, tables)) + 1, max(map(len, members)) + 1
        return SharedLevel(
            mx.array([table + [self.nobodys] * (width - len(table)) for table in [*tables, []]], dtype=mx.int32),
            mx.array([len(table) * self.block_size for table in [*tables, []]], dtype=mx.int32),
            mx.array([rows + [0] * (most - len(rows)) for rows in [*members, []]], dtype=mx.int32),
            mx.array([-1 if own is None else own * most + members[own].index(row) for row, own in enumerate(groups)]),
        )

    def _prefix_slots(self, row: int) -> list[int]:
        tables = [
            shared[prefix.groups[row]]
            for prefix, shared in zip(self.prefixes, self.shared, strict=True)
            if prefix.groups[row] is not None
        ]
        return [slot for table in tables for slot in self.slots(table, 0, len(table) * self.block_size)]

    def expected(self) -> tuple[Array, Array]:
        """(R, H, D) and (R, H), head by head."""
        heads = range(self.kv_heads * self.group)
        rows = [
            [self._attend(self.queries[row, head], head, self._seen_slots(row)) for head in heads]
            for row in range(len(self.lengths))
        ]
        return np.array([[out for out, _ in row] for row in rows]), np.array([[lse for _, lse in row] for row in rows])

    def _attend(self, query: Array, head: int, slots: Sequence[int]) -> tuple[Array, float]:
        keys, values = (pool[slots, head // self.group].astype(np.float64) for pool in (self.keys, self.values))
        scores = keys @ query.astype(np.float64) * self.scale
        if self.softcap is not None:
            scores = self.softcap * np.tanh(scores / self.softcap)
        all_scores = scores if self.sinks is None else np.append(scores, self.sinks[head])
        lse = float(np.log(np.exp(all_scores - all_scores.max()).sum()) + all_scores.max())
        return np.exp(scores - lse) @ values, lse


def poison_free_memory() -> None:
    """Leave NaN in the memory that the next arrays are likely to get."""
    mx.eval([mx.full((2**size,), math.nan) for size in range(4, 22)])


def assert_close(actual: mx.array, expected: Array, tolerance: float) -> None:
    assert actual.shape == expected.shape
    found = np.array(actual.astype(mx.float32)).astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)


def check(case: Case) -> None:
    out, lse = case.run()
    expected_out, expected_lse = case.expected()
    assert out.dtype == case.dtype and lse.dtype == mx.float32
    assert_close(out, expected_out, TOLERANCE[case.dtype])
    assert_close(lse, expected_lse, TOLERANCE[case.dtype])


def lengths_around(block_size: int, *more: int) -> list[int]:
    return [1, block_size - 1, block_size, block_size + 1, *more]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", HEAD_SIZES)
def test_every_head_size_in_every_type(dim: int, dtype: mx.Dtype) -> None:
    check(Case(lengths_around(16, 300), dim=dim, dtype=dtype, group=3))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("group", range(1, MAX_GROUP + 1))
def test_every_number_of_query_heads_a_kv_head(group: int, dtype: mx.Dtype) -> None:
    check(Case(lengths_around(16, 200), group=group, dtype=dtype))


@pytest.mark.parametrize(("dim", "group"), [(256, 16), (256, 4), (192, 9), (80, 7), (128, 16)])
def test_the_widest_heads_in_the_largest_groups(dim: int, group: int) -> None:
    check(Case(lengths_around(16, 100), dim=dim, group=group, kv_heads=1))


@pytest.mark.parametrize("block_size", [BLOCK_SIZES[0], 12, 16, 32, BLOCK_SIZES[-1]])
def test_every_block_size_at_its_edges(block_size: int) -> None:
    check(Case(lengths_around(block_size, 2 * block_size, 5 * block_size + 3), block_size=block_size))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_and_short_rows_share_a_batch(dtype: mx.Dtype) -> None:
    check(Case(lengths_around(16, 4097), dtype=dtype, kv_heads=1))


@pytest.mark.parametrize(
    ("window", "softcap", "has_sinks"), list(product([None, 1, 7, 16, 17, 100, 5000], [None, 2.0], [False, True]))
)
def test_every_option_together_with_every_other(window: int | None, softcap: float | None, has_sinks: bool) -> None:
    check(Case(lengths_around(16, 117, 700), window=window, softcap=softcap, has_sinks=has_sinks))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_options_of_real_models_on_a_long_row(dtype: mx.Dtype) -> None:
    check(Case([4097, 3], group=8, dtype=dtype, window=128, has_sinks=True))
    check(Case([4097, 3], dim=256, dtype=dtype, kv_heads=1, softcap=50.0))


@pytest.mark.parametrize("group", [2, 5])
def test_every_option_on_rows_that_are_split_beside_rows_that_are_not(group: int) -> None:
    lengths = [4500, 2100, 1024, 1025, 5]
    check(Case(lengths, kv_heads=1, group=group, window=3000, softcap=3.0, has_sinks=True))


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 70])
def test_any_number_of_rows(rows: int) -> None:
    check(Case([13 + 5 * row for row in range(rows)], kv_heads=4))


def test_a_sink_far_above_all_scores_leaves_nothing() -> None:
    case = Case([40, 1], has_sinks=True)
    assert case.sinks is not None
    case.sinks[:] = 90.0
    out, lse = case.run()
    assert np.abs(np.array(out)).max() < 1e-30
    np.testing.assert_allclose(np.array(lse), 90.0)


def test_scores_of_thousands_overflow_nothing() -> None:
    case = Case([40, 17, 1], dtype=mx.float32)
    case.queries *= 1000
    check(case)


def test_the_same_inputs_give_the_same_bits_on_memory_of_others() -> None:
    case = Case(lengths_around(16, 4097))
    poison_free_memory()
    first = [np.array(array) for array in case.run()]
    poison_free_memory()
    for before, after in zip(first, case.run(), strict=True):
        np.testing.assert_array_equal(before, np.array(after))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "kv_heads", "group"), [(64, 3, 1), (128, 2, 2), (80, 1, 7), (256, 1, 4)])
def test_a_shared_prefix_equals_the_whole_sequences(dim: int, kv_heads: int, group: int, dtype: mx.Dtype) -> None:
    shape = {"dim": dim, "kv_heads": kv_heads, "group": group, "dtype": dtype}
    case = Case(lengths_around(16, 290), **shape, prefixes=(Prefix((0,) * 5, (9,)),))  # type: ignore[arg-type]
    assert_close(case.run_shared(), case.expected()[0], PRODUCT_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FORESTS)
def test_groups_and_groups_within_groups_equal_the_whole_sequences(name: str, dtype: mx.Dtype) -> None:
    case = Case([5, 16, 1, 40, 17, 9], dtype=dtype, dim=128, prefixes=FORESTS[name])
    assert_close(case.run_shared(), case.expected()[0], PRODUCT_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [1, 7, 16, 17, 100])
def test_rows_of_one_group_see_as_much_of_it_as_their_windows_reach(window: int, dtype: mx.Dtype) -> None:
    shape = {"dim": 128, "dtype": dtype, "window": window, "has_sinks": window % 2 == 1}
    case = Case([5, 16, 1, 40, 17, 95], **shape, prefixes=(Prefix((0,) * 6, (6,)),))  # type: ignore[arg-type]
    assert_close(case.run_shared(), case.expected()[0], PRODUCT_TOLERANCE[dtype])


@pytest.mark.parametrize(("window", "softcap", "has_sinks"), [(90, 3.0, True), (300, None, True), (None, 2.0, False)])
@pytest.mark.parametrize("dim", [64, 80])
@pytest.mark.parametrize("name", FORESTS)
def test_every_option_on_groups_and_groups_within_groups(
    name: str, dim: int, window: int | None, softcap: float | None, has_sinks: bool
) -> None:
    for dtype in (mx.float32, mx.float16):
        options = {"window": window, "softcap": softcap, "has_sinks": has_sinks, "dtype": dtype}
        case = Case([5, 16, 1, 40, 17, 9], dim=dim, prefixes=FORESTS[name], **options)  # type: ignore[arg-type]
        assert_close(case.run_shared(), case.expected()[0], PRODUCT_TOLERANCE[dtype])


def check_chunk(case: Case, count: int) -> None:
    queries, table, [length] = case._random(count, 4, case.dim), case.tables[0], case.lengths
    out = chunk_attention(
        case.array(queries),
        case.array(case.keys),
        case.array(case.values),
        mx.array(table),
        length,
        scale=case.scale,
        block_size=case.block_size,
        window=case.window,
        sinks=None if case.sinks is None else case.array(case.sinks),
        softcap=case.softcap,
    )
    expected = []
    for end in range(length - count + 1, length + 1):
        slots = case.slots(table, 0 if case.window is None else max(end - case.window, 0), end)
        query = queries[end - 1 - length + count]
        expected.append([case._attend(query[head], head, slots)[0] for head in range(4)])
    assert_close(out, np.array(expected), PRODUCT_TOLERANCE[case.dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("count", "dim"), [(1, 64), (5, 80), (150, 128), (33, 256)])
def test_a_prompt_chunk_is_causal_and_never_sees_behind_its_end(count: int, dim: int, dtype: mx.Dtype) -> None:
    check_chunk(Case([150], dim=dim, dtype=dtype), count)


@pytest.mark.parametrize("window", [1, 7, 16, 17, 100, 149, 150])
@pytest.mark.parametrize("count", [1, 16, 31, 150])
def test_a_prompt_chunk_sees_no_further_than_its_window(count: int, window: int) -> None:
    case = Case([150], has_sinks=window % 2 == 1)
    case.window = window  # after the tokens were made, because the first query sees further back than the last one
    check_chunk(case, count)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_a_prompt_chunk_with_a_softcap(has_sinks: bool, window: int | None) -> None:
    case = Case([150], softcap=2.0, has_sinks=has_sinks)
    case.window = window
    check_chunk(case, 70)


@dataclass
class LatentCase(Case):
    """Values are the first columns of keys, as in multi-head latent attention."""

    value_dim: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values = self.keys[..., : self.value_dim]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "value_dim", "group"), [(576, 512, 20), (192, 128, 4), (96, 64, 2)])
def test_values_of_another_width_than_keys_are_served_by_rows_prefixes_and_chunks(
    dim: int, value_dim: int, group: int, dtype: mx.Dtype
) -> None:
    shape = {"dim": dim, "value_dim": value_dim, "group": group, "dtype": dtype, "kv_heads": 1}
    case = LatentCase(lengths_around(16, 100), **shape)  # type: ignore[arg-type]
    assert_close(case.run()[0], case.expected()[0], PRODUCT_TOLERANCE[dtype])
    case = LatentCase([5, 16, 1, 40, 17, 9], **shape, prefixes=FORESTS["groups on a root"])  # type: ignore[arg-type]
    assert_close(case.run_shared(), case.expected()[0], PRODUCT_TOLERANCE[dtype])
    check_chunk(LatentCase([150], **(shape | {"group": 4})), 33)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [None, 7])
def test_the_matrix_products_of_a_gpu_see_nothing_of_slots_that_hold_nan(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerance = 1e-4 if reference.backend() == "reference" else 0.01  # products of float32 may keep 10 bits on a GPU
    monkeypatch.setattr(reference, "backend", lambda: "cuda")
    monkeypatch.setattr(f"{__name__}.POISON", math.nan)
    shape = {"dim": 96, "value_dim": 64, "group": 2, "kv_heads": 1, "window": window}
    case = LatentCase(lengths_around(16, 100), **shape)  # type: ignore[arg-type]
    assert_close(case.run()[0], case.expected()[0], tolerance)
    case = LatentCase([5, 16, 1, 40, 17, 9], **shape, prefixes=FORESTS["groups on a root"])  # type: ignore[arg-type]
    assert_close(case.run_shared(), case.expected()[0], tolerance)
    check_chunk(LatentCase([150], **(shape | {"group": 4})), 1)  # type: ignore[arg-type]


def test_levels_that_do_not_fit_are_refused_by_both_shapes() -> None:
    case = Case([5, 9], prefixes=(Prefix((0, 0), (2,)),) * 3)
    with pytest.raises(ValueError, match="levels must be 1 to 2; got 3"):
        case.run_shared()
    case = Case([5, 9], prefixes=(Prefix((0, 0, 0), (2,)),))
    with pytest.raises(ValueError, match=r"places must be.*\(3,\) and \(2, 4, 64\)"):
        case.run_shared()


def test_arrays_that_do_not_fit_each_other_are_refused_by_both_shapes() -> None:
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"head size.*\(2, 4, 32\) and \(64, 2, 64\)"):
        case.queries = case.queries[:, :, :32]
        case.run()
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"no multiple.*\(2, 3, 64\) and \(64, 2, 64\)"):
        case.queries = case.queries[:, :3]
        case.run()
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"seq_lens.*\(2, 4, 64\) and \(3,\)"):
        case.lengths = [1, 2, 3]
        case.run()
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"block_tables.*\(2, 4, 64\) and \(1, 2\)"):
        case.tables = case.tables[:1]
        case.run()
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"k_pool and v_pool.*\(64, 2, 64\) and \(32, 2, 64\)"):
        case.values = case.values[:32]
        case.run()
    case = Case([5, 9], has_sinks=True)
    with pytest.raises(ValueError, match=r"sinks.*\(2, 4, 64\) and \(4, 1\)"):
        assert case.sinks is not None
        case.sinks = case.sinks[:, None]
        case.run()
    case = Case([5, 9])
    with pytest.raises(ValueError, match=r"block_size=24 does not divide the 64 slots"):
        case.block_size = 24
        case.run()


@pytest.mark.parametrize(("option", "message"), [({"window": 0}, "window=0"), ({"softcap": -1.0}, "softcap=-1.0")])
def test_options_that_mean_nothing_are_refused(option: dict[str, int], message: str) -> None:
    case = Case([5])
    vars(case).update(option)
    with pytest.raises(ValueError, match=message):
        case.run()


def zeros(heads: int = 4, kv_heads: int = 2, dim: int = 64, dtype: mx.Dtype = mx.float16) -> tuple[mx.array, mx.array]:
    return mx.zeros((1, heads, dim), dtype=dtype), mx.zeros((128, kv_heads, dim), dtype=dtype)


def test_the_kernels_refuse_what_they_are_not_made_for_and_say_what_they_serve() -> None:
    queries, pool = zeros()
    check_kernel(queries, pool, pool, 16)
    odd_queries, odd_pool = zeros(dim=72)
    with pytest.raises(ValueError, match=r"head size 72: .* serve 64, 80, 96, 112, 128, 192, 256"):
        check_kernel(odd_queries, odd_pool, odd_pool, 16)
    int_queries, int_pool = zeros(dtype=mx.int32)
    with pytest.raises(ValueError, match=r"pools of .*int32: .* serve float32, float16, bfloat16"):
        check_kernel(int_queries, int_pool, int_pool, 16)
    with pytest.raises(ValueError, match=r"float32, float16, float16: .* one type"):
        check_kernel(queries.astype(mx.float32), pool, pool, 16)
    with pytest.raises(ValueError, match=r"block_size=4: .* serve 8 to 64"):
        check_kernel(queries, pool, pool, 4)
    many_queries, _ = zeros(heads=34)
    with pytest.raises(ValueError, match=r"17 query heads a KV head: .* serve 1 to 16"):
        check_kernel(many_queries, pool, pool, 16)


@pytest.mark.parametrize("dialect", ["metal", "cuda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_work_covers_every_head_and_column_within_what_a_threadgroup_may_take(
    dialect: str, dtype: mx.Dtype
) -> None:
    for dim, group in product(HEAD_SIZES, range(1, MAX_GROUP + 1)):
        work = gpu.share_work(dialect, dtype, dim, group)
        assert work.lanes * 8 >= dim and 32 % work.lanes == 0
        assert work.head_tiles * work.tile_heads >= group > (work.head_tiles - 1) * work.tile_heads
        assert work.num_threads <= 256
        assert work.head_tiles * work.streams * work.tile_heads * (dim + 2) * 4 < 32 * 1024


def test_rows_are_split_until_a_gpu_is_full_but_never_into_crumbs_and_long_rows_always() -> None:
    assert gpu.count_splits("cuda", 1, 1, 100) == 1
    assert gpu.count_splits("cuda", 1, 8, 8192) == 8
    assert gpu.count_splits("cuda", 1, 8, 1_000_000) == 32
    assert gpu.count_splits("cuda", 64, 8, 4096) == 1
    assert gpu.count_splits("cuda", 64, 8, 40_000) == 4
    assert gpu.count_splits("metal", 8, 8, 4096) == 8
    assert gpu.count_splits("metal", 8, 8, 1100) == 4


def test_the_kernel_sources_are_installed_with_the_package() -> None:
    names = {path.name for path in (files("mlx_agent_kernels") / "src").iterdir()}
    bodies = {
        name
        for name in names
        if name.endswith(".h") and not name.startswith(("dialect_", "indices_", "matrix_", "packed_"))
    }
    assert {"README.md", "dialect_metal.h", "dialect_cuda.h", "indices_metal.h", "indices_cuda.h"} <= names
    assert len(bodies) == NUM_KERNEL_BODIES


def test_a_kernels_text_says_its_constants_and_speaks_one_dialect() -> None:
    constants = (("HEAD_DIM", 64), ("SCALE", 0.125), ("HAS_SINKS", True))
    metal, _ = kernel_text("paged_attention", "metal", mx.bfloat16, constants)
    cuda, source = kernel_text("paged_attention", "cuda", mx.float16, constants)
    assert metal.startswith("#define ELEMENT_TYPE bfloat16_t\n#define HEAD_DIM 64\n#define SCALE 0.125f\n")
    assert "#define HAS_SINKS 1\n" in cuda and "#define ELEMENT_TYPE __half\n" in cuda
    assert "simd_shuffle_xor" in metal and "simd_shuffle_xor" not in cuda
    assert "blockIdx" in source and "threadgroup_position_in_grid" not in source
