import random

import pytest

from mlx_agent_llm.core.kv.block_pool import BlockPool


def test_free_cached_and_used_add_up_after_every_one_of_many_random_operations() -> None:
    rng = random.Random(0)
    pool = BlockPool(12)
    held: list[list[int]] = []
    for number in range(3000):
        action = rng.choice(["allocate", "allocate", "share", "release", "release", "hash", "forget"])
        if action == "allocate" and pool.num_available:
            held.append(pool.allocate(rng.randint(1, min(4, pool.num_available))))
        elif action == "share" and (block_id := pool.find(str(rng.randint(0, 20)).encode())) is not None:
            pool.share(block_id)
            held.append([block_id])
        elif action == "release" and held:
            pool.release(held.pop(rng.randrange(len(held))))
        elif action == "hash" and held:
            pool.set_hash(rng.choice(rng.choice(held)), str(rng.randint(0, 20)).encode(), b"")
        elif action == "forget" and number % 10 == 0:
            pool.forget()
        pool.check_integrity()
        assert pool.num_free + pool.num_cached + pool.num_used == pool.num_blocks
        assert pool.num_used == len({block_id for table in held for block_id in table})


def test_allocate_never_hands_out_a_block_that_somebody_holds() -> None:
    pool = BlockPool(8)
    first = pool.allocate(3)
    assert set(first).isdisjoint(pool.allocate(5))
    assert pool.num_available == 0


def test_allocating_more_than_is_available_is_refused() -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    with pytest.raises(AssertionError, match="asked for 2 of 1 blocks"):
        pool.allocate(2)
    pool.check_integrity()


def test_a_released_block_with_a_hash_is_found_and_shared_again() -> None:
    pool = BlockPool(2)
    [block_id] = pool.allocate(1)
    pool.set_hash(block_id, b"content", b"")
    pool.release([block_id])
    assert (pool.num_free, pool.num_cached, pool.num_used) == (1, 1, 0)
    assert pool.find(b"content") == block_id
    pool.share(block_id)
    assert (pool.num_cached, pool.num_used) == (0, 1)


def test_a_released_block_without_a_hash_is_free() -> None:
    pool = BlockPool(2)
    pool.release(pool.allocate(2))
    assert (pool.num_free, pool.num_cached) == (2, 0)


def test_a_shared_block_stays_in_use_until_its_last_holder_lets_go() -> None:
    pool = BlockPool(1)
    [block_id] = pool.allocate(1)
    pool.share(block_id)
    assert pool.num_shared == 1
    pool.release([block_id])
    assert (pool.num_used, pool.num_shared) == (1, 0)
    pool.release([block_id])
    assert (pool.num_free, pool.num_used) == (1, 0)


def test_releasing_a_block_twice_is_refused() -> None:
    pool = BlockPool(1)
    [block_id] = pool.allocate(1)
    pool.release([block_id])
    with pytest.raises(AssertionError, match="released twice"):
        pool.release([block_id])


def test_sharing_a_free_block_is_refused() -> None:
    with pytest.raises(AssertionError, match="is free"):
        BlockPool(1).share(0)


def test_free_blocks_are_taken_before_any_cached_one_is_evicted() -> None:
    pool = BlockPool(3)
    [block_id] = pool.allocate(1)
    pool.set_hash(block_id, b"content", b"")
    pool.release([block_id])
    pool.allocate(2)
    assert pool.find(b"content") == block_id
    assert pool.num_evictions == 0
    pool.allocate(1)
    assert pool.find(b"content") is None
    assert pool.num_evictions == 1


def test_the_least_recently_used_table_is_evicted_first_and_its_end_before_its_start() -> None:
    pool = BlockPool(4)
    old, new = pool.allocate(2), pool.allocate(2)
    for block_id in old + new:
        pool.set_hash(block_id, b"%d" % block_id, b"")
    pool.release(old)
    pool.release(new)
    assert [pool.allocate(1)[0] for _ in range(4)] == [old[1], old[0], new[1], new[0]]


def test_the_first_block_with_a_content_stays_the_one_that_is_found() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.set_hash(first, b"content", b"")
    pool.set_hash(second, b"content", b"")
    assert pool.find(b"content") == first
    pool.release([second])
    assert (pool.num_free, pool.num_cached) == (1, 0)  # nobody could find it: not worth keeping
    pool.check_integrity()


def test_forget_frees_cached_blocks_and_leaves_used_ones_to_their_holders() -> None:
    pool = BlockPool(3)
    cached, used = pool.allocate(1), pool.allocate(1)
    pool.set_hash(cached[0], b"a", b"")
    pool.set_hash(used[0], b"b", b"")
    pool.release(cached)
    pool.forget()
    assert (pool.num_free, pool.num_cached, pool.num_used) == (2, 0, 1)
    assert pool.find(b"a") is None and pool.find(b"b") is None
    pool.release(used)
    assert pool.num_free == 3
    pool.check_integrity()


def test_integrity_finds_a_block_that_is_in_two_states() -> None:
    pool = BlockPool(2)
    [block_id] = pool.allocate(1)
    pool._free.append(block_id)
    with pytest.raises(AssertionError, match="two states"):
        pool.check_integrity()


def test_blocks_that_are_withdrawn_take_along_what_comes_after_them_and_nothing_else() -> None:
    pool = BlockPool(6)
    root, child, grandchild, sibling, other, plain = pool.allocate(6)
    chain = [
        (root, b"r", b""),
        (child, b"c", b"r"),
        (grandchild, b"g", b"c"),
        (sibling, b"s", b"r"),
        (other, b"o", b""),
    ]
    for block_id, block_hash, hash_before in chain:
        pool.set_hash(block_id, block_hash, hash_before)
    pool.release([grandchild, other])
    assert pool.withdraw([child, plain]) == {child, grandchild}
    pool.check_integrity()
    assert [pool.find(block_hash) for _, block_hash, _ in chain] == [root, None, None, sibling, other]
    assert (pool.num_free, pool.num_cached, pool.num_used) == (1, 1, 4)
