"""The matrix is that of the tables of now, whatever came and went; only blocks that are new to it are converted."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.batch.table_matrix import TableMatrix
from tests.support.search import examples

FILLER = -7


class CountedTable(list[int]):
    """A table that counts the blocks that are read of it."""

    num_read = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.num_read += len(found) if isinstance(key, slice) else 1
        return found


def table(name: int, width: int) -> CountedTable:
    return CountedTable(range(1000 * name, 1000 * name + width))


def check(matrix: TableMatrix, tables: list[Any], *, is_same: bool) -> None:
    found, widths, found_same = matrix.update(tables)
    longest = max(map(len, tables))
    assert found.tolist() == [[*one, *[FILLER] * (longest - len(one))] for one in tables]
    assert widths.tolist() == [len(one) for one in tables]
    assert found_same == is_same


# What happens before each update: who is in the batch, in which order, and by how much each table grows; a table that
# shrinks is another list, as after a preemption.
STEPS = st.lists(
    st.tuples(st.permutations(range(6)), st.integers(1, 6), st.lists(st.integers(-1, 9), min_size=6, max_size=6)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=examples(300))
@given(STEPS)
def test_after_any_joins_leaves_moves_and_growth_it_is_the_matrix_of_the_tables(steps: Any) -> None:
    matrix, tables, last = TableMatrix(FILLER), [table(name, name + 1) for name in range(6)], list[Any]()
    for step, (order, num_here, growth) in enumerate(steps):
        for name, count in enumerate(growth):
            if count < 0:
                tables[name] = table(10 * step + name, 1)
            tables[name].extend(range(100 * step, 100 * step + count))
        here = [tables[name] for name in order[:num_here]]
        is_same = len(here) == len(last) and all(new is old for new, old in zip(here, last, strict=True))
        check(matrix, here, is_same=is_same)
        last = here


def test_one_table_may_stand_in_several_rows() -> None:
    matrix, one, other = TableMatrix(FILLER), table(1, 3), table(2, 5)
    check(matrix, [one, one], is_same=False)
    check(matrix, [other, one, one, one], is_same=False)


def test_a_block_is_converted_once_however_many_rows_join_and_leave() -> None:
    matrix = TableMatrix(FILLER)
    tables = [table(name, 100 + name) for name in range(32)]
    here: list[Any] = []
    for one in tables:
        here.insert(len(here) // 2, one)
        one.append(0)
        matrix.update(here)
    while len(here) > 1:
        here.pop(len(here) // 3)
        for one in here:
            one.append(1)
        check(matrix, here, is_same=False)
    assert all(100 < one.num_read <= len(one) for one in tables)


def test_a_long_row_that_left_is_not_moved_with_the_short_ones() -> None:
    matrix, short = TableMatrix(FILLER), [table(1, 3), table(2, 4)]
    check(matrix, [table(3, 900), *short], is_same=False)
    check(matrix, short, is_same=False)
    assert matrix._matrix.shape[1] <= 16 and matrix._spare.shape == matrix._matrix.shape


def test_rows_beside_an_even_longer_one_keep_what_they_had() -> None:
    matrix, tables = TableMatrix(FILLER), [table(name, 5) for name in range(3)]
    check(matrix, tables, is_same=False)
    tables[1].extend(range(50))
    check(matrix, tables, is_same=True)
    check(matrix, [tables[2], table(9, 200), tables[1]], is_same=False)
    assert sum(one.num_read for one in tables) == 65
