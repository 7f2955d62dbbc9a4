"""What a request holds of layers that see a window, and from where a prefix can be gone on."""

from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.kv.window_blocks import WindowBlocks
from mlx_agent_llm.request import Draft, Request, SamplingParams

SIZE, WINDOW = 4, 6


def manager(num_window_blocks: int = 20, *, prefix_cache: bool = True) -> KVManager:
    return KVManager(PoolSizes(64, 0, num_window_blocks, WINDOW), SIZE, prefix_cache=prefix_cache)


def request(prompt: list[int], request_id: int = 0) -> Request:
    return Request(request_id, prompt, SamplingParams(), 0, lambda delta: None)


def windows(kv: KVManager) -> WindowBlocks:
    assert kv.windows is not None
    return kv.windows


def compute(kv: KVManager, one: Request, budget: int = 1000) -> int | None:
    count = kv.allocate(one, budget)
    kv.end_step()
    return count


def test_what_is_behind_the_window_goes_back_after_the_step_and_stays_findable() -> None:
    kv, one = manager(), request([*range(25)])
    assert kv.allocate(one, 1000) == 25
    assert windows(kv).pool.num_used == 7, "the forward sees all of them"
    kv.end_step()
    assert one.kv.num_blocks_behind == 5  # the token at position 25 sees 20 to 24
    assert (windows(kv).pool.num_used, windows(kv).pool.num_cached) == (2, 5)


def test_the_held_blocks_stay_as_few_as_the_window_however_long_the_sequence() -> None:
    kv, one = manager(num_window_blocks=6), request([*range(8)])
    compute(kv, one)
    for token in range(100):
        one.token_ids.append(token)
        assert compute(kv, one) == 1
        assert windows(kv).pool.num_used <= 3
    kv.free(one)
    kv.check_integrity(is_idle=True)


def test_blocks_that_the_next_token_sees_if_a_draft_is_wrong_are_held_until_that_is_known() -> None:
    kv, one = manager(prefix_cache=False), request([*range(16)])
    compute(kv, one)
    one.token_ids.append(0)
    one.draft = Draft((1,) * 10, (False,) * 10)
    assert compute(kv, one) == 11
    kv.settle(one, 10, 0)
    assert one.kv.num_blocks_behind == 3  # the token at position 17 sees 12 to 17
    assert windows(kv).pool.num_used == 4, "those, and two that the draft was written to"


def test_a_prefix_is_found_where_the_blocks_before_it_are_still_there() -> None:
    kv, one = manager(), request([*range(41)])
    compute(kv, one)
    two = request([*range(41)], 1)
    assert compute(kv, two) == 1
    assert two.kv.window_table[:8] == [20] * 8, "what it does not see it does not hold"
    assert two.kv.window_table[8:10] == one.kv.window_table[8:10]


def test_a_prefix_whose_window_was_given_away_is_found_as_far_as_another_one_is_there() -> None:
    kv, one = manager(num_window_blocks=12), request([*range(41)])
    compute(kv, one)
    kv.free(one)
    pool = windows(kv).pool
    pool.drop_cached(one.kv.block_hashes[8])
    two = request([*range(41)], 1)
    compute(kv, two)
    assert two.num_cached_tokens == 32, "after 36 or 40 tokens block 8 is seen"


def test_no_room_for_the_window_is_no_room() -> None:
    kv, one = manager(num_window_blocks=4), request([*range(40)])
    assert kv.allocate(one, 20) is None
    assert not one.kv.block_table and not one.kv.window_table
    assert compute(kv, one, 16) == 16


def test_blocks_that_may_not_be_finite_are_cleaned_for_their_next_owner() -> None:
    kv, one = manager(), request([*range(9)])
    compute(kv, one)
    kv.withdraw([one], [])
    kv.free(one)
    two = request([*range(9)], 1)
    assert kv.allocate(two, 100) == 9, "nothing is found"
    copies = kv.end_step().window_copies
    assert {copy.target for copy in copies} == set(two.kv.window_table)
    assert {copy.source for copy in copies} == {20}
