"""Groups of rows that read common blocks together: what they may share, what pays, and that nothing changes by it."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_kernels import paged_attention
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.batch.packing import Packing
from mlx_agent_llm.core.batch.sharing import Group, Levels, SharingCosts, find_levels
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.request import Request, SamplingParams
from tests.support.search import examples

SIZE = 4
FREE = SharingCosts(launches=0, copies=1)
# Of each row: which way it takes where the tree of common blocks branches, and the tokens that it has after that.
FORESTS = st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=6), st.integers(1, 9)), min_size=1, max_size=8)
COSTS = st.builds(SharingCosts, st.integers(0, 12), st.sampled_from([1.0, 1.5, 3.0]))


def levels_of(tables: list[list[int]], costs: SharingCosts, num_shareable: list[int] | None = None) -> Levels:
    width = max(map(len, tables))
    matrix = np.array([table + [999] * (width - len(table)) for table in tables], dtype=np.int32)
    limits = [len(table) - 1 for table in tables] if num_shareable is None else num_shareable
    return find_levels(matrix, np.array(limits, dtype=np.int32), costs)


def named(index: int, path: list[int], num_own: int) -> list[int]:
    """A table whose shared blocks are named by the way to them and its own ones by its index."""
    shared = [int("1" + "".join(map(str, path[: depth + 1])), 3) for depth in range(len(path))]
    return shared + [10_000 + 100 * index + block for block in range(-(-num_own // SIZE))]


SYSTEM, FIRST, SECOND = [1, 2, 3, 4], [10, 11], [20, 21, 22]
AGENTS = [[*SYSTEM, *FIRST, 50], [*SYSTEM, *FIRST, 51], [*SYSTEM, *SECOND, 52], [*SYSTEM, *SECOND, 53], [*SYSTEM, 54]]


def test_all_share_a_system_prompt_and_some_a_document_behind_it() -> None:
    root, documents = levels_of(AGENTS, FREE)
    assert root == (Group((0, 1, 2, 3, 4), 0, 4),)
    assert sorted(documents) == [Group((0, 1), 4, 6), Group((2, 3), 4, 7)]


@pytest.mark.parametrize(
    ("launches", "expected"),
    [(0, 2), (3, 2), (5, 1), (15, 1), (16, 0)],
)
def test_a_level_has_to_save_more_blocks_than_its_launches_cost(launches: int, expected: int) -> None:
    # Five rows save 4 * 4 blocks by the system prompt; the documents, as wide as the wider, 2 * 2 + 2 * 3 - 2 * 3 = 4.
    assert len(levels_of(AGENTS, SharingCosts(launches, 1))) == expected


@given(num_of_half=st.integers(1, 8), costs=COSTS)
def test_the_fewest_blocks_that_are_worth_one_level_and_two(num_of_half: int, costs: SharingCosts) -> None:
    num_rows = 2 * num_of_half

    def num_levels(num_common: int, num_after: int) -> int:
        common, halves = [1] * num_common, ([2] * num_after, [3] * num_after)
        return len(levels_of([[*common, *halves[row % 2], 100 + row] for row in range(num_rows)], costs))

    if (fewest := costs.num_worth_sharing(num_rows)) is not None:
        assert (num_levels(fewest, 0), num_levels(fewest - 1, 0)) == (1, 0)
    if (both := costs.num_worth_two_levels(num_rows)) is not None:
        fewest, fewest_after = both
        assert num_levels(fewest, fewest_after) == 2
        assert max(num_levels(fewest - 1, fewest_after), num_levels(fewest, fewest_after - 1)) == 1


def test_documents_alone_are_groups_when_nothing_is_common_to_all() -> None:
    tables = [[1, 2, 50], [1, 2, 51], [3, 4, 52], [3, 4, 53], [60]]
    [groups] = levels_of(tables, FREE)
    assert sorted(groups) == [Group((0, 1), 0, 2), Group((2, 3), 0, 2)]


def test_of_a_deep_tree_the_depth_that_saves_most_stands_on_the_root() -> None:
    deep = [[1, 2, 3, *range(100, 140), 50 + row] for row in range(4)]
    shallow = [[1, 2, 9, 60], [1, 2, 8, 61]]
    root, groups = levels_of([*deep, *shallow], FREE)
    assert root == (Group((0, 1, 2, 3, 4, 5), 0, 2),)
    assert groups == (Group((0, 1, 2, 3), 2, 43),)


def test_no_row_shares_the_block_of_its_last_token() -> None:
    assert levels_of([[1, 2], [1, 2], [1, 2]], FREE, [1, 1, 1]) == ((Group((0, 1, 2), 0, 1),),)
    assert levels_of([[1], [1]], FREE, [0, 0]) == ()


def test_rows_alone_share_nothing() -> None:
    assert levels_of([[1, 2, 3]], FREE) == ()
    assert levels_of([[1, 2, 3], [4, 5, 6]], FREE) == ()


@settings(max_examples=examples(300))
@given(FORESTS, COSTS)
def test_groups_agree_in_what_they_read_and_no_row_is_in_two_of_a_level(
    paths: list[tuple[list[int], int]], costs: SharingCosts
) -> None:
    tables = [named(index, path, num_own) for index, (path, num_own) in enumerate(paths)]
    levels = levels_of(tables, costs)
    assert len(levels) <= 2
    begins = [0] * len(tables)
    for groups in levels:
        rows = [row for group in groups for row in group.rows]
        assert len(rows) == len(set(rows))
        for group in groups:
            assert len(group.rows) >= 2 and group.begin < group.end
            assert {group.begin} == {begins[row] for row in group.rows}
            assert len({tuple(tables[row][: group.end]) for row in group.rows}) == 1
            assert all(group.end < len(tables[row]) for row in group.rows)
            for row in group.rows:
                begins[row] = group.end


@settings(max_examples=examples(60))
@given(FORESTS, st.booleans(), st.integers(1, 4))
def test_attention_by_groups_is_attention_row_by_row(
    paths: list[tuple[list[int], int]], in_buckets: bool, max_length: int
) -> None:
    chunks, pool_ids = [], {}
    for index, (path, num_own) in enumerate(paths):
        table = [pool_ids.setdefault(block, len(pool_ids)) for block in named(index, path, num_own)]
        num_tokens = len(path) * SIZE + num_own
        request = Request(index, list(range(num_tokens)), SamplingParams(), 0, lambda delta: None)
        request.kv.block_table = table
        length = min(1 + index % max_length, num_own)
        chunks.append(Chunk(request, num_tokens - length, length, is_sampled=True))
    schedule = Schedule([c for c in chunks if c.length == 1], [c for c in chunks if c.length > 1])
    layer = PagedLayer(KVShape(2, 8, 8, mx.float32), len(pool_ids), SIZE)
    layer.keys, layer.values = (mx.random.normal(layer.keys.shape, key=mx.random.key(seed)) for seed in (1, 2))
    outputs = []
    for costs in (FREE, SharingCosts(10_000, 1)):
        packing = Packing(len(pool_ids), in_buckets=in_buckets, max_row_chunk=max_length, costs=costs)
        batch = BatchMaker(SIZE, packing).make(schedule, ())
        assert batch.rows is not None and not batch.prompts
        layer.batch = batch
        queries = mx.random.normal((batch.num_rows, 4, 8), key=mx.random.key(3))
        outputs.append(np.array(layer.attend_heads(queries, 0.3))[: batch.num_tokens])
    np.testing.assert_allclose(*outputs, atol=1e-5)
    plain = paged_attention(
        queries, layer.keys, layer.values, batch.rows.block_tables, batch.rows.seq_lens, scale=0.3, block_size=SIZE
    )
    np.testing.assert_allclose(outputs[0], np.array(plain)[: batch.num_tokens], atol=1e-5)
