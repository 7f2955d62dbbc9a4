from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.batch.batch import Batch, RowSpan
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.batch.packing import Packing, bucket
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.request import Request, SamplingParams
from tests.support.search import examples

SIZE = 4
CHEAP = SharingCosts(launches=0, copies=1)
# Of each row: which way it takes where the tree of common blocks branches, and the tokens that it has after that.
FORESTS = st.lists(st.tuples(st.lists(st.integers(0, 1), max_size=5), st.integers(1, 9)), min_size=1, max_size=7)


def grown(index: int, path: list[int], num_own: int, max_length: int) -> Chunk:
    """A chunk of a request whose blocks are named by the way to them, and its own ones by its index."""
    num_tokens = len(path) * SIZE + num_own
    table = [int("1" + "".join(map(str, path[: depth + 1])), 2) for depth in range(len(path))]
    table += [100 * index + 100 + block for block in range(-(-num_own // SIZE))]
    length = min(1 + index % max_length, num_own)
    return Chunk(request(list(range(num_tokens)), table), num_tokens - length, length, is_sampled=True)


def request(token_ids: list[int], block_table: list[int], *, num_in_flight: int = 0) -> Request:
    made = Request(0, token_ids, SamplingParams(), 0, lambda delta: None)
    made.kv.block_table, made.num_in_flight = block_table, num_in_flight
    return made


def make_batch(schedule: Schedule, in_flight: tuple[Request, ...] = (), **packing: Any) -> Batch:
    return BatchMaker(SIZE, Packing(**({"padding_block": 99} | packing))).make(schedule, in_flight)


def row(made: Request) -> Chunk:
    return Chunk(made, made.num_tokens - 1, 1, is_sampled=True)


def values(array: Any) -> Any:
    return np.array(array).tolist()


def test_rows_come_first_and_every_token_goes_to_the_slot_of_its_position() -> None:
    prompt = Chunk(request([10, 11, 12, 13, 14, 15], [7, 2]), 2, 4, is_sampled=True)
    batch = make_batch(Schedule([row(request([20, 21, 22, 23, 24], [5, 9]))], [prompt]))
    assert values(batch.tokens.token_ids) == [24, 12, 13, 14, 15]
    assert values(batch.tokens.positions) == [4, 2, 3, 4, 5]
    assert values(batch.tokens.slot_mapping) == [36, 30, 31, 8, 9]
    assert values(batch.tokens.sampled_rows) == [0, 4]
    assert (batch.num_tokens, batch.num_rows) == (5, 1)
    [span] = batch.prompts
    assert (span.begin, span.end, span.seq_len, values(span.block_table)) == (1, 5, 6, [7, 2])


def test_a_chunk_that_leaves_prompt_tokens_over_is_not_sampled() -> None:
    one = request(list(range(10)), [0, 1, 2])
    batch = make_batch(Schedule([], [Chunk(one, 0, 8, is_sampled=False)]))
    assert batch.sampled == ()
    assert batch.tokens.sampled_rows.size == 0
    assert batch.rows is None


def test_a_token_in_flight_is_taken_from_its_row_of_the_last_samples() -> None:
    first, second = request([1, 2], [0], num_in_flight=1), request([3, 4, 5], [1], num_in_flight=1)
    batch = make_batch(Schedule([row(first), row(second)], []), (second, request([9], [2]), first))
    assert values(batch.tokens.token_ids) == [0, 0]
    assert values(batch.tokens.in_flight_sources) == [2, 0]
    assert batch.has_in_flight
    assert values(batch.tokens.positions) == [2, 3]


def test_a_preempted_prompt_may_end_with_a_token_in_flight() -> None:
    again = request([1, 2, 3], [0], num_in_flight=1)
    batch = make_batch(Schedule([], [Chunk(again, 0, 4, is_sampled=True)]), (again,))
    assert values(batch.tokens.token_ids) == [1, 2, 3, 0]
    assert values(batch.tokens.in_flight_sources) == [-1, -1, -1, 0]


def full_tables(span: RowSpan[mx.array]) -> list[list[int]]:
    """Of each row the blocks that it reads with others, level by level, and then its own as far as its tokens go."""
    tables, own, seq_lens = [], np.array(span.block_tables), values(span.seq_lens)
    for row_index, seq_len in enumerate(seq_lens):
        assert seq_len >= 1
        blocks: list[int] = []
        for level in span.levels:
            if (place := values(level.places)[row_index]) >= 0:
                group, member = divmod(place, level.members.shape[1])
                assert values(level.members)[group][member] == row_index
                blocks += values(level.block_tables)[group][: values(level.seq_lens)[group] // SIZE]
        tables.append(blocks + own[row_index, : -(-seq_len // SIZE)].tolist())
    return tables


def test_rows_that_begin_with_the_same_blocks_read_them_once() -> None:
    rows = [row(request(list(range(length)), [3, 4, 5, 6, last])) for length, last in ((17, 7), (18, 8), (20, 9))]
    span = make_batch(Schedule(rows, []), costs=CHEAP).rows
    assert span is not None
    [level] = span.levels
    assert values(level.block_tables) == [[3, 4, 5, 6]]
    assert (values(level.seq_lens), values(level.members), values(level.places)) == ([16], [[0, 1, 2]], [0, 1, 2])
    assert values(span.block_tables) == [[7], [8], [9]]
    assert values(span.seq_lens) == [1, 2, 4]


def test_some_rows_share_more_than_all_do() -> None:
    tables = [[1, 2, 3, 10, 20], [1, 2, 3, 10, 21], [1, 2, 3, 11, 22], [1, 2, 3, 11, 23], [1, 2, 3, 24, 25]]
    rows = [row(request(list(range(18)), table)) for table in tables]
    span = make_batch(Schedule(rows, []), costs=CHEAP).rows
    assert span is not None
    root, branches = span.levels
    assert values(root.block_tables) == [[1, 2, 3]]
    assert sorted(values(branches.block_tables)) == [[10], [11]]
    assert values(branches.places)[4] == -1
    assert values(span.seq_lens) == [2, 2, 2, 2, 6]
    assert full_tables(span) == tables


def test_what_is_after_the_end_of_a_shorter_group_is_a_block_of_its_own() -> None:
    """Another request's block may hold what is not finite, which no weight of zero cancels."""
    tables = [[3, 4, 5, 6, 20], [3, 4, 5, 6, 21], [7, 8, 22, 23, 24], [7, 8, 25, 26, 27]]
    span = make_batch(Schedule([row(request(list(range(18)), table)) for table in tables], []), costs=CHEAP).rows
    assert span is not None
    [level] = span.levels
    assert sorted(values(level.block_tables)) == [[3, 4, 5, 6], [7, 8, 7, 7]]


def test_rows_whose_blocks_are_all_shared_keep_the_block_of_their_last_token() -> None:
    rows = [row(request(list(range(8)), [1, 2])) for _ in range(3)]
    span = make_batch(Schedule(rows, []), costs=CHEAP).rows
    assert span is not None
    assert values(span.block_tables) == [[2]] * 3
    assert values(span.seq_lens) == [4] * 3


@settings(max_examples=examples(300))
@given(FORESTS, st.booleans(), st.integers(1, 3))
def test_what_a_row_reads_is_its_table_however_it_is_shared(
    paths: list[tuple[list[int], int]], in_buckets: bool, max_length: int
) -> None:
    chunks = [grown(index, path, num_own, max_length) for index, (path, num_own) in enumerate(paths)]
    schedule = Schedule([c for c in chunks if c.length == 1], [c for c in chunks if c.length > 1])
    batch = make_batch(schedule, costs=CHEAP, in_buckets=in_buckets, max_row_chunk=max_length)
    assert batch.rows is not None and not batch.prompts
    expected = [
        chunk.request.kv.block_table[: position // SIZE + 1]
        for chunk in [*schedule.rows, *schedule.prompts]
        for position in range(chunk.start, chunk.start + chunk.length)
    ]
    assert full_tables(batch.rows)[: batch.num_tokens] == expected
    assert values(batch.tokens.positions)[: batch.num_tokens] == [
        position
        for chunk in [*schedule.rows, *schedule.prompts]
        for position in range(chunk.start, chunk.start + chunk.length)
    ]


def test_what_is_remembered_of_a_batch_never_shows_in_the_next_one() -> None:
    maker, fresh = BatchMaker(SIZE, Packing(99, costs=CHEAP)), Packing(99, costs=CHEAP)
    first = [request(list(range(13)), [1, 2, 3, 10 + index]) for index in range(3)]
    for step in range(12):
        if step == 5:
            first[1].kv.block_table = [7, 8, 9, 20]  # as after a preemption
        if step == 9:
            first.append(request(list(range(17)), [1, 2, 3, 4, 30]))
        for one in first:
            one.token_ids.append(0)
            if len(one.token_ids) > SIZE * len(one.kv.block_table):
                one.kv.block_table.append(40 + step)
        schedule = Schedule([row(one) for one in first], [])
        batch, expected = maker.make(schedule, ()), BatchMaker(SIZE, fresh).make(schedule, ())
        assert batch.rows is not None and expected.rows is not None
        assert full_tables(batch.rows) == full_tables(expected.rows) == [one.kv.block_table for one in first]
        assert values(batch.tokens.slot_mapping) == values(expected.tokens.slot_mapping)


def test_tokens_of_a_short_chunk_are_rows_of_their_own() -> None:
    chunk = Chunk(request([*range(10)], [7, 2, 3]), 5, 5, is_sampled=True)
    long = Chunk(request([*range(10)], [4, 5, 6]), 0, 6, is_sampled=False)
    schedule = Schedule([row(request([1, 2], [8]))], [long, chunk])
    batch = make_batch(schedule, max_row_chunk=5, costs=SharingCosts(1000, 1))
    assert values(batch.tokens.positions) == [1, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert batch.rows is not None and batch.rows.levels == ()
    assert values(batch.rows.seq_lens) == [2, 6, 7, 8, 9, 10]
    assert values(batch.rows.block_tables)[0][0] == 8
    assert values(batch.rows.block_tables)[1:] == [[7, 2, 3]] * 5
    assert [(span.begin, span.end) for span in batch.prompts] == [(6, 12)]
    assert values(batch.tokens.sampled_rows) == [0, 5]
    assert batch.sampled == (schedule.rows[0].request, chunk.request)


@given(st.integers(1, 5000))
def test_buckets_are_few_and_at_most_half_as_large_again(count: int) -> None:
    assert count <= bucket(count) < max(1.5 * count, 2)
    assert bin(bucket(count)).count("1") <= 2


def test_a_batch_of_rows_alone_is_filled_up_to_a_bucket_with_rows_that_read_and_write_nobodys_block() -> None:
    rows = [row(request(list(range(9)), [7, 2, 3])) for _ in range(5)]
    batch = make_batch(Schedule(rows, []), in_buckets=True, costs=SharingCosts(1000, 1))
    assert (batch.num_tokens, batch.num_rows, batch.num_padding, len(batch.sampled)) == (5, 6, 0, 5)
    assert values(batch.tokens.slot_mapping)[-1] == 99 * SIZE
    assert values(batch.tokens.sampled_rows) == [0, 1, 2, 3, 4, 0]
    assert batch.rows is not None
    assert values(batch.rows.block_tables)[-2:] == [[7, 2, 3] + [99] * 13, [99] * 16]
    assert values(batch.rows.seq_lens) == [9] * 5 + [1]


@pytest.mark.parametrize(("num_tokens", "in_buckets"), [(5, True), (6, False)])
def test_a_batch_with_many_rows_of_chunks_has_just_these(num_tokens: int, in_buckets: bool) -> None:
    rows = [row(request(list(range(9)), [7, 2, 3])) for _ in range(3)]
    chunk = Chunk(request([*range(num_tokens)], [4, 5]), 0, num_tokens, is_sampled=True)
    batch = make_batch(Schedule(rows, [chunk]), in_buckets=True, max_row_chunk=8, max_bucket_of_chunks=8)
    assert batch.in_buckets == in_buckets
    assert batch.num_rows == (8 if in_buckets else 9)
    assert values(batch.tokens.sampled_rows) == [0, 1, 2, 3 + num_tokens - 1] + [0, 0, 0, 0] * in_buckets
    without_chunks = make_batch(Schedule([*rows] * 4, []), in_buckets=True, max_bucket_of_chunks=8)
    assert without_chunks.in_buckets


def test_groups_come_in_few_shapes() -> None:
    common = list(range(45))
    rows = [row(request([*range(45 * SIZE), index], [*common, 50 + index])) for index in range(5)]
    span = make_batch(Schedule(rows, []), in_buckets=True, costs=CHEAP).rows
    assert span is not None
    [level] = span.levels
    assert (level.block_tables.shape, level.members.shape, level.places.shape) == ((1, 48), (1, 6), (6,))
    assert values(level.seq_lens) == [45 * SIZE]
    assert values(level.places) == [0, 1, 2, 3, 4, -1]
    assert [table[0] for table in values(span.block_tables)] == [50, 51, 52, 53, 54, 99]
    assert span.block_tables.shape == (6, 16)


def test_a_lone_token_gets_company_that_attends_to_nothing() -> None:
    batch = make_batch(Schedule([row(request([1, 2, 3], [4]))], []), min_tokens=2, padding_block=9)
    assert (batch.num_tokens, batch.num_rows, batch.num_padding) == (1, 1, 1)
    assert values(batch.tokens.slot_mapping) == [18, 36]
