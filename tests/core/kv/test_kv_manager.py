from array import array
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.request import Request, SamplingParams

SIZE = 4


def manager(num_blocks: int = 16, *, prefix_cache: bool = True) -> KVManager:
    return KVManager(PoolSizes(num_blocks), SIZE, prefix_cache=prefix_cache)


def request(prompt: Sequence[int], request_id: int = 0, *, salt: str | None = None) -> Request:
    return Request(request_id, list(prompt), SamplingParams(cache_salt=salt), 0, lambda delta: None)


def test_a_new_request_gets_just_the_blocks_that_its_tokens_need() -> None:
    kv, one = manager(), request(range(9))
    assert kv.allocate(one, 100) == 9
    assert len(one.kv.block_table) == 3
    assert kv.pool.num_used == 3


@pytest.mark.parametrize(("length", "found"), [(1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8)])
def test_a_prefix_match_leaves_at_least_one_token_to_compute(length: int, found: int) -> None:
    kv, first, second = manager(), request(range(20)), request(range(length), 1)
    kv.allocate(first, 100)
    assert kv.allocate(second, 100) == length - found
    assert second.num_cached_tokens == found
    assert second.kv.block_table[: found // SIZE] == first.kv.block_table[: found // SIZE]


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
    table = first.kv.block_table[:2]
    kv.free(first)
    assert kv.pool.num_cached == 2
    assert kv.allocate(second, 100) == 5
    assert second.kv.block_table[:2] == table


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
    assert (second.kv.block_table, second.kv.num_computed_tokens, second.num_cached_tokens) == ([], 0, 0)
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
        hashes.add(kv.hashes.of(request(tokens), 2))
    assert len(hashes) == 12


@pytest.mark.parametrize(("first", "second", "found"), [(None, "a", 0), ("a", None, 0), ("a", "b", 0), ("a", "a", 8)])
def test_a_prefix_is_shared_only_under_one_salt(first: str | None, second: str | None, found: int) -> None:
    kv, one, other = manager(), request(range(9), salt=first), request(range(9), 1, salt=second)
    kv.allocate(one, 100)
    kv.allocate(other, 100)
    assert other.num_cached_tokens == found


def test_after_a_reset_nothing_is_found_of_what_was_there_or_is_added_by_who_held_blocks() -> None:
    kv, ended, running = manager(), request(range(9)), request(range(20, 31), 1)
    kv.allocate(ended, 100)
    kv.free(ended)
    kv.allocate(running, 100)
    kv.reset_prefix_cache([running])
    running.token_ids += [31, 32]
    kv.allocate(running, 100)  # fills its third block
    kv.pool.check_integrity()
    assert (running.kv.num_published_blocks, kv.pool.num_cached) == (2, 0)
    for number, prompt in enumerate([range(9), range(20, 40)]):
        later = request(prompt, 2 + number)
        kv.allocate(later, 100)
        assert later.num_cached_tokens == 0
        kv.free(later)
    kv.free(running)
    assert kv.pool.num_cached == 2 + 5


def test_a_request_that_starts_after_a_reset_is_found_again() -> None:
    kv, one, two = manager(), request(range(9)), request(range(9), 1)
    kv.allocate(one, 100)
    kv.reset_prefix_cache([one])
    kv.free(one)
    kv.allocate(one, 100)
    assert one.num_cached_tokens == 0
    kv.allocate(two, 100)
    assert two.num_cached_tokens == 8


def child_of(parent: Request, *, num_tokens: int | None = None) -> Request:
    child = request(parent.prompt_token_ids, 50)
    child.token_ids, child.parent = parent.token_ids[:num_tokens], parent
    return child


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize(
    ("num_tokens", "num_shared", "is_copied"), [(1, 0, False), (4, 0, True), (5, 1, False), (7, 1, True)]
)
def test_a_child_shares_full_blocks_and_gets_a_copy_of_the_one_it_goes_on_in(
    num_tokens: int, num_shared: int, is_copied: bool, prefix_cache: bool
) -> None:
    kv, parent = manager(prefix_cache=prefix_cache), request(range(11))
    kv.allocate(parent, 100)
    child = child_of(parent, num_tokens=num_tokens)
    assert kv.num_missing_blocks(child) == 1
    assert kv.allocate(child, 100) == 1
    assert kv.pool.num_shared == num_shared and len(child.kv.block_table) == num_shared + 1
    copies = kv.end_step().copies
    assert copies == ([(parent.kv.block_table[num_shared], child.kv.block_table[num_shared])] if is_copied else [])
    assert kv.end_step().copies == [] and child.parent is None


def test_a_child_that_finds_no_room_holds_nothing_and_keeps_its_parent() -> None:
    kv, parent = manager(3), request(range(11))
    kv.allocate(parent, 100)
    child = child_of(parent)
    assert kv.allocate(child, 100) is None
    assert (child.kv.block_table, child.kv.num_computed_tokens, child.parent) == ([], 0, parent)
    assert (kv.pool.num_shared, kv.end_step().copies) == (0, [])


def test_a_child_of_a_request_that_the_reset_made_private_is_private_too() -> None:
    kv, parent = manager(), request(range(11))
    kv.allocate(parent, 100)
    kv.reset_prefix_cache([parent])
    child = child_of(parent)
    child.token_ids += [11, 12, 13]
    parent.token_ids += [11, 12, 13]
    kv.allocate(parent, 100)
    kv.allocate(child, 100)
    kv.free(parent)
    kv.free(child)
    assert kv.pool.num_cached == 0


def test_no_salt_is_taken_for_a_block_of_another_prompt() -> None:
    """The salt is the very bytes that the first block's hash is made of."""
    kv, victim = manager(), request([1, 2, 3, 4, 5, 6, 7, 8, 9])
    kv.allocate(victim, 100)
    thief = request([5, 6, 7, 8, 9], 1, salt=array("q", [1, 2, 3, 4]).tobytes().decode())
    kv.allocate(thief, 100)
    assert thief.num_cached_tokens == 0
    assert thief.cache_key not in victim.kv.block_hashes


def test_nothing_to_compute_is_not_taken_for_a_full_pool() -> None:
    kv, leader, follower = manager(4), request(range(9)), request(range(9), 1)
    follower.grammar = Future()  # its last token waits for the grammar
    kv.allocate(leader, 100)
    assert kv.allocate(follower, 100) == 0
    assert kv.allocate(request(range(50, 90), 2), 100) is None


def test_what_a_request_with_spoiled_logits_read_or_computed_is_not_found_again() -> None:
    kv, spoiled = manager(), request(range(13))
    kv.allocate(spoiled, 100)
    kv.withdraw([spoiled], [spoiled])
    kv.free(spoiled)
    kv.pool.check_integrity()
    assert kv.pool.num_cached == 0
    again = request(range(13), 1)
    assert kv.allocate(again, 100) == 13


def test_what_rows_with_finite_logits_have_read_is_not_doubted() -> None:
    kv, sound, spoiled = manager(), request(range(9)), request([*range(8), *range(90, 99)], 1)
    kv.allocate(sound, 100)
    sound.kv.num_trusted_tokens = 9
    kv.allocate(spoiled, 100)
    kv.withdraw([spoiled], [sound, spoiled])
    kv.free(spoiled)
    assert kv.pool.num_cached == 0 and kv.allocate(request([*range(8), 70], 2), 100) == 1
    assert sound.kv.may_publish and not spoiled.kv.num_published_blocks


def test_who_shares_a_spoiled_block_publishes_nothing_more_and_what_it_published_is_gone() -> None:
    kv, spoiled, sharer = manager(), request(range(9)), request(range(21), 1)
    kv.allocate(spoiled, 100)
    kv.allocate(sharer, 4)  # shares two blocks and computes a third, which others can find
    kv.withdraw([spoiled], [spoiled, sharer])
    kv.free(spoiled)
    kv.allocate(sharer, 100)
    kv.free(sharer)
    assert kv.pool.num_cached == 0


def test_what_an_ended_request_computed_after_a_spoiled_block_is_not_found_when_that_one_is_right_again() -> None:
    kv, spoiled, ended = manager(), request(range(9)), request(range(21), 1)
    kv.allocate(spoiled, 100)
    kv.allocate(ended, 100)
    kv.free(ended)
    kv.withdraw([spoiled], [spoiled])
    kv.free(spoiled)
    kv.allocate(request(range(9), 2), 100)
    assert kv.allocate(request(range(21), 3), 100) == 21 - 8


def test_the_blocks_of_a_spoiled_request_that_ended_before_that_was_known_are_withdrawn_too() -> None:
    kv, spoiled = manager(), request(range(9))
    kv.allocate(spoiled, 100)
    kv.free(spoiled)
    kv.withdraw([spoiled], [])
    assert kv.pool.num_cached == 0


def test_a_spoiled_block_is_cleaned_once_for_its_next_owner() -> None:
    kv, spoiled, later, last = manager(2), request(range(5)), request(range(50, 55), 1), request(range(60, 65), 2)
    kv.allocate(spoiled, 100)
    blocks = set(spoiled.kv.block_table)
    kv.withdraw([spoiled], [spoiled])
    kv.free(spoiled)
    assert kv.end_step().copies == []
    kv.allocate(later, 100)
    assert {(source, target) for source, target in kv.end_step().copies} == {
        (kv.pool.num_blocks, one) for one in blocks
    }
    kv.free(later)
    kv.allocate(last, 100)
    assert kv.end_step().copies == []


def test_a_spoiled_block_that_a_fork_copies_to_is_written_once() -> None:
    kv, spoiled, parent = manager(3), request([1]), request(range(11, 17), 1)
    kv.allocate(spoiled, 100)
    kv.withdraw([spoiled], [spoiled])
    kv.free(spoiled)
    kv.allocate(parent, 100)
    kv.end_step()
    child = child_of(parent)
    kv.allocate(child, 100)
    assert kv.end_step().copies == [(parent.kv.block_table[1], child.kv.block_table[1])]


def test_an_allocation_that_breaks_gives_back_all_that_it_took() -> None:
    kv, leader, broken = manager(), request(range(9)), request([*range(8), 2**70, 0, 0, 0], 1)
    kv.allocate(leader, 100)
    with pytest.raises(OverflowError):
        kv.allocate(broken, 100)
    kv.discard(broken)
    kv.pool.check_integrity()
    assert broken.kv.block_table == [] and kv.pool.num_used == 3 and kv.pool.num_shared == 0
