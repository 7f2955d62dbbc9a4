from collections.abc import Sequence

import pytest

from mlx_agent_llm.core.kv_manager import KVManager
from mlx_agent_llm.request import Request, SamplingParams

SIZE = 4


def manager(num_blocks: int = 16, *, prefix_cache: bool = True) -> KVManager:
    return KVManager(num_blocks, SIZE, prefix_cache=prefix_cache)


def request(prompt: Sequence[int], request_id: int = 0) -> Request:
    return Request(request_id, list(prompt), SamplingParams(), 0, lambda delta: None)


def test_a_new_request_gets_just_the_blocks_that_its_tokens_need() -> None:
    kv, one = manager(), request(range(9))
    assert kv.allocate(one, 100) == 9
    assert len(one.block_table) == 3
    assert kv.pool.num_used == 3


@pytest.mark.parametrize(("length", "found"), [(1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8)])
def test_a_prefix_match_leaves_at_least_one_token_to_compute(length: int, found: int) -> None:
    kv, first, second = manager(), request(range(20)), request(range(length), 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) == length - found
    assert second.num_cached_tokens == found
    assert second.block_table[: found // SIZE] == first.block_table[: found // SIZE]


def test_a_prefix_is_shared_while_its_first_owner_still_computes_it() -> None:
    kv, first, second = manager(), request(range(9)), request([*range(8), 99], 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) == 1
    assert kv.pool.num_shared == 2


def test_equal_blocks_after_different_beginnings_are_not_shared() -> None:
    kv = manager()
    first, second = request([1, 1, 1, 1, 5, 5, 5, 5, 0]), request([2, 2, 2, 2, 5, 5, 5, 5, 0], 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) == 9
    assert kv.pool.num_shared == 0


def test_without_the_prefix_cache_nothing_is_shared_or_kept() -> None:
    kv, first, second = manager(prefix_cache=False), request(range(9)), request(range(9), 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) == 9
    kv.free(first)
    kv.free(second)
    assert (kv.pool.num_free, kv.pool.num_cached) == (16, 0)


def test_what_a_freed_request_computed_is_found_by_a_later_one() -> None:
    kv, first, second = manager(), request(range(9)), request(range(13), 1)
    kv.allocate(first, 100)
    table = first.block_table[:2]
    kv.free(first)
    assert kv.pool.num_cached == 2
    assert kv.allocate(second, 100) == 5
    assert second.block_table[:2] == table


def test_a_block_with_a_token_in_flight_is_not_found_before_the_token_is_read() -> None:
    kv, first, second = manager(), request([0, 1, 2]), request([0, 1, 2, 3, 4], 1)
    kv.allocate(first, 100)
    first.num_in_flight = 1
    kv.allocate(first, 1)  # its fourth token is on the device
    assert kv.allocate(second, 100) == 5
    kv.free(second)
    first.token_ids.append(3)
    first.num_in_flight = 1
    kv.allocate(first, 1)
    assert kv.allocate(second, 100) == 1


def test_a_chunk_that_does_not_end_its_prompt_ends_at_the_border_of_a_block() -> None:
    kv, one = manager(), request(range(30))
    assert [kv.allocate(one, 10) for _ in range(4)] == [8, 8, 8, 6]


def test_a_budget_smaller_than_a_block_still_moves_on_and_back_to_a_border() -> None:
    kv, one = manager(), request(range(13))
    assert [kv.allocate(one, 3) for _ in range(5)] == [3, 1, 3, 1, 3]


def test_a_request_that_finds_no_room_holds_nothing_and_counts_nothing() -> None:
    kv, first, second = manager(3), request(range(9)), request([*range(8), *range(50, 60)], 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) is None
    assert (second.block_table, second.num_computed_tokens, second.num_cached_tokens) == ([], 0, 0)
    assert kv.pool.num_shared == 0
    assert (kv.stats.query_tokens, kv.stats.hit_tokens) == (9, 0)


def test_tokens_that_are_found_count_also_when_there_is_no_room_yet_for_the_rest() -> None:
    kv = manager(8)
    leader, follower, other = request(range(16)), request(range(21), 1), request(range(100, 109), 2)
    kv.allocate(leader, 4)
    kv.allocate(follower, 4)  # shares the leader's first block and computes the second itself
    kv.allocate(other, 100)
    kv.allocate(leader, 100)
    assert kv.allocate(follower, 100) is None  # shares two further blocks, and finds no room for its end
    kv.free(other)
    assert kv.allocate(follower, 100) == 5
    assert follower.num_cached_tokens == kv.stats.hit_tokens - leader.num_cached_tokens == 12


def test_missing_blocks_leave_out_those_that_are_in_use_and_can_be_shared() -> None:
    kv, first, second = manager(), request(range(9)), request(range(12), 1)
    assert kv.num_missing_blocks(second) == 3
    kv.allocate(first, 100)
    assert kv.num_missing_blocks(second) == 1
    kv.free(first)
    assert kv.num_missing_blocks(second) == 3  # cached blocks are available blocks: sharing one takes it


def test_the_hash_of_a_block_depends_on_every_token_before_it() -> None:
    kv = manager(64)
    hashes = set()
    for position in range(12):
        tokens = list(range(12))
        tokens[position] = 77
        hashes.add(kv._block_hash(request(tokens), 2))
    assert len(hashes) == 12
