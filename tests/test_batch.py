from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm.core.batch import Padding, bucket, make_batch
from mlx_agent_llm.core.scheduler import Chunk, Schedule
from mlx_agent_llm.request import Request, SamplingParams

SIZE = 4


def request(token_ids: list[int], block_table: list[int], *, num_in_flight: int = 0) -> Request:
    made = Request(0, token_ids, SamplingParams(), 0, lambda delta: None)
    made.block_table, made.num_in_flight = block_table, num_in_flight
    return made


def row(made: Request) -> Chunk:
    return Chunk(made, made.num_tokens - 1, 1, is_sampled=True)


def values(array: Any) -> Any:
    return np.array(array).tolist()


def test_rows_come_first_and_every_token_goes_to_the_slot_of_its_position() -> None:
    prompt = Chunk(request([10, 11, 12, 13, 14, 15], [7, 2]), 2, 4, is_sampled=True)
    batch = make_batch(Schedule([row(request([20, 21, 22, 23, 24], [5, 9]))], [prompt]), (), SIZE)
    assert values(batch.token_ids) == [24, 12, 13, 14, 15]
    assert values(batch.positions) == [4, 2, 3, 4, 5]
    assert values(batch.slot_mapping) == [36, 30, 31, 8, 9]
    assert values(batch.sampled_rows) == [0, 4]
    assert (batch.num_tokens, batch.num_rows) == (5, 1)
    [span] = batch.prompts
    assert (span.begin, span.end, span.seq_len, values(span.block_table)) == (1, 5, 6, [7, 2])


def test_a_chunk_that_leaves_prompt_tokens_over_is_not_sampled() -> None:
    one = request(list(range(10)), [0, 1, 2])
    batch = make_batch(Schedule([], [Chunk(one, 0, 8, is_sampled=False)]), (), SIZE)
    assert batch.sampled == ()
    assert batch.sampled_rows.size == 0
    assert batch.rows is None


def test_a_token_in_flight_is_taken_from_its_row_of_the_last_samples() -> None:
    first, second = request([1, 2], [0], num_in_flight=1), request([3, 4, 5], [1], num_in_flight=1)
    batch = make_batch(Schedule([row(first), row(second)], []), (second, request([9], [2]), first), SIZE)
    assert values(batch.token_ids) == [0, 0]
    assert values(batch.in_flight_rows) == [0, 1]
    assert values(batch.in_flight_sources) == [2, 0]
    assert values(batch.positions) == [2, 3]


def test_a_preempted_prompt_may_end_with_a_token_in_flight() -> None:
    again = request([1, 2, 3], [0], num_in_flight=1)
    batch = make_batch(Schedule([], [Chunk(again, 0, 4, is_sampled=True)]), (again,), SIZE)
    assert values(batch.token_ids) == [1, 2, 3, 0]
    assert (values(batch.in_flight_rows), values(batch.in_flight_sources)) == ([3], [0])


def test_rows_that_begin_with_the_same_blocks_share_them_once() -> None:
    rows = [row(request(list(range(length)), [3, 4, 5, 6, last])) for length, last in ((17, 7), (18, 8), (20, 9))]
    span = make_batch(Schedule(rows, []), (), SIZE, min_shared_blocks=4).rows
    assert span is not None and span.prefix_table is not None
    assert values(span.prefix_table) == [3, 4, 5, 6]
    assert values(span.block_tables) == [[7], [8], [9]]
    assert values(span.seq_lens) == [1, 2, 4]


@pytest.mark.parametrize("min_shared_blocks", [4, 100])
def test_too_short_a_common_beginning_is_not_worth_a_group(min_shared_blocks: int) -> None:
    rows = [row(request(list(range(17)), [3, 4, 5, last, 10 + last])) for last in (7, 8)]
    span = make_batch(Schedule(rows, []), (), SIZE, min_shared_blocks=min_shared_blocks).rows
    assert span is not None and span.prefix_table is None
    assert values(span.seq_lens) == [17, 17]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), min_size=1, max_size=6), st.integers(1, 4))
def test_prefix_and_own_blocks_of_a_row_are_its_table_again(shapes: list[tuple[int, int]], min_shared: int) -> None:
    rows = []
    for index, (num_common, num_own) in enumerate(shapes):
        num_tokens = num_common * SIZE + num_own
        num_blocks = -(-num_tokens // SIZE)
        table = [*range(num_common), *range(100 * index + 10, 100 * index + 10 + num_blocks - num_common)]
        rows.append(row(request(list(range(num_tokens)), table)))
    span = make_batch(Schedule(rows, []), (), SIZE, min_shared_blocks=min_shared).rows
    assert span is not None
    prefix = [] if span.prefix_table is None else values(span.prefix_table)
    assert not prefix or len(prefix) >= min_shared
    tables, seq_lens = np.array(span.block_tables), values(span.seq_lens)
    for chunk, own_table, seq_len in zip(rows, tables, seq_lens, strict=True):
        assert seq_len >= 1
        assert len(prefix) * SIZE + seq_len == chunk.start + 1
        own_blocks = own_table[: -(-seq_len // SIZE)].tolist()
        assert prefix + own_blocks == chunk.request.block_table


@given(st.integers(1, 5000))
def test_buckets_are_few_and_at_most_half_as_large_again(count: int) -> None:
    assert count <= bucket(count) < max(1.5 * count, 2)
    assert bin(bucket(count)).count("1") <= 2


def test_a_batch_of_rows_alone_is_filled_up_to_a_bucket_with_rows_that_read_and_write_nobodys_block() -> None:
    rows = [row(request(list(range(9)), [7, 2, 3])) for _ in range(5)]
    batch = make_batch(Schedule(rows, []), (), SIZE, Padding(99, in_buckets=True))
    assert (batch.num_tokens, batch.num_rows, batch.num_padding, len(batch.sampled)) == (5, 6, 0, 5)
    assert values(batch.slot_mapping)[-1] == 99 * SIZE
    assert batch.rows is not None
    assert values(batch.rows.block_tables)[-1] == [99, 99, 99]
    assert values(batch.rows.seq_lens) == [9] * 5 + [1]


def test_a_long_prefix_is_shared_up_to_one_of_few_lengths_and_the_rest_is_read_row_by_row() -> None:
    common = list(range(45))
    rows = [row(request([*range(45 * SIZE), index], [*common, 50 + index])) for index in range(3)]
    span = make_batch(Schedule(rows, []), (), SIZE, Padding(99, in_buckets=True)).rows
    assert span is not None and span.prefix_table is not None
    assert values(span.prefix_table) == list(range(40))
    assert values(span.block_tables)[1] == [40, 41, 42, 43, 44, 51]
    assert values(span.seq_lens) == [21, 21, 21]
    with_prompt = Schedule(rows, [Chunk(request([1, 2], [60]), 0, 2, is_sampled=True)])
    exact = make_batch(with_prompt, (), SIZE, Padding(99, in_buckets=True)).rows
    assert exact is not None and exact.prefix_table is not None
    assert len(values(exact.prefix_table)) == 45


def test_a_lone_token_gets_company_that_attends_to_nothing() -> None:
    batch = make_batch(Schedule([row(request([1, 2, 3], [4]))], []), (), SIZE, Padding(9, min_tokens=2))
    assert (batch.num_tokens, batch.num_rows, batch.num_padding) == (1, 1, 1)
    assert values(batch.slot_mapping) == [18, 36]
