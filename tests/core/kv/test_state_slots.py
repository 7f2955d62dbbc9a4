"""Which states are kept, who goes on from them, and what is never written over."""

import pytest

from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.request import Draft, Request, SamplingParams

SIZE = 4


def manager(num_slots: int = 12, *, snapshot_tokens: int = 512, prefix_cache: bool = True) -> KVManager:
    return KVManager(PoolSizes(64, num_slots), SIZE, prefix_cache=prefix_cache, snapshot_tokens=snapshot_tokens)


def request(prompt: list[int], request_id: int = 0) -> Request:
    return Request(request_id, prompt, SamplingParams(), 0, lambda delta: None)


def compute(kv: KVManager, one: Request, budget: int = 1000) -> int | None:
    count = kv.allocate(one, budget)
    kv.end_step()
    return count


def num_snapshots(kv: KVManager) -> int:
    assert kv.states is not None
    return kv.states.pool.num_findable


def test_a_prompt_leaves_the_state_at_its_last_border_and_the_same_prompt_goes_on_from_it() -> None:
    kv, first, second = manager(), request([*range(18)]), request([*range(18)], 1)
    assert compute(kv, first) == 18
    assert [(span.begin, span.end) for span in first.kv.state_spans] == [(0, 16), (16, 18)]
    assert compute(kv, second) == 2
    assert second.kv.state_spans[0].source == first.kv.state_spans[0].target


def test_a_request_of_the_same_step_goes_on_from_a_state_that_is_being_made() -> None:
    kv, first, second = manager(), request([*range(16), 1]), request([*range(16), 2], 1)
    assert kv.allocate(first, 1000) == 17
    assert kv.allocate(second, 1000) == 1
    [span] = second.kv.state_spans
    assert span.source == first.kv.state_spans[0].target and span.number > first.kv.state_spans[0].number


def test_where_prompts_part_the_second_leaves_a_state_and_the_third_finds_it() -> None:
    kv = manager()
    prompts = [[*range(32), *[100 + index] * 9] for index in range(3)]
    requests = [request(prompt, index) for index, prompt in enumerate(prompts)]
    assert [compute(kv, one) for one in requests] == [41, 41, 9]
    assert requests[2].num_cached_tokens == 32


def test_long_prompts_leave_a_state_every_so_often() -> None:
    kv = manager(snapshot_tokens=10)  # in whole blocks: 12
    compute(kv, request([*range(41)]))
    for length, found in [(12, 0), (13, 12), (25, 24), (30, 24), (37, 36)]:
        one = request([*range(length)], length)
        compute(kv, one)
        assert one.num_cached_tokens == found
        kv.free(one)


def test_chats_leave_a_state_at_the_last_border_within_each_message_of_some_length() -> None:
    kv = manager()
    first = request([*range(70)])
    first.message_ends = [3, 22, 30, 41, 69]
    assert compute(kv, first) == 70
    assert [span.end for span in first.kv.state_spans] == [20, 40, 68, 70]
    for num_common, found in [(69, 68), (67, 40), (39, 20), (19, 0)]:
        other = request([*range(num_common), 99], num_common)
        compute(kv, other)
        assert other.num_cached_tokens == found
        kv.free(other)


def test_of_what_is_generated_only_the_last_state_is_kept() -> None:
    kv, one = manager(), request([*range(9)])
    compute(kv, one)
    for token in range(23):
        one.token_ids.append(token)
        compute(kv, one)
    assert num_snapshots(kv) == 2  # at 8, the prompt's last border, and at 32
    kv.free(one)
    following = request([*one.token_ids, 77], 1)
    assert compute(kv, following) == len(following.token_ids) - 32


def test_a_snapshot_is_not_written_over_while_there_is_room_for_another_state() -> None:
    kv, one = manager(num_slots=3), request([*range(9)])
    compute(kv, one)
    snapshot = one.kv.state_spans[0].target
    for token in range(2):
        one.token_ids.append(token)
        compute(kv, one)
        assert one.kv.state_slot != snapshot
    assert num_snapshots(kv) == 1


def test_with_a_single_slot_each_the_states_move_on_in_place() -> None:
    kv, requests = manager(num_slots=2), [request([index] * 9, index) for index in range(2)]
    for one in requests:
        assert compute(kv, one) == 9
    for token in range(12):
        for one in requests:
            one.token_ids.append(token)
            assert compute(kv, one) == 1
    assert kv.allocate(request([5] * 9, 3), 100) is None, "there is no third slot"


def test_a_preempted_request_goes_on_from_its_last_state() -> None:
    kv, one = manager(), request([*range(9)])
    compute(kv, one)
    for token in range(8):
        one.token_ids.append(token)
        compute(kv, one)
    kv.free(one)
    assert compute(kv, one) == 1, "17 tokens, of which 16 are found"


@pytest.mark.parametrize("forget", ["reset_prefix_cache", "withdraw"])
def test_forgotten_states_are_found_by_nobody(forget: str) -> None:
    kv, one, two = manager(), request([*range(9)]), request([*range(9)], 1)
    compute(kv, one)
    if forget == "withdraw":
        kv.withdraw([one], [])
    else:
        kv.reset_prefix_cache([one])
    assert num_snapshots(kv) == 0
    kv.free(one)
    assert compute(kv, two) == 9


def test_without_the_prefix_cache_no_state_is_kept() -> None:
    kv, one = manager(prefix_cache=False), request([*range(20)])
    compute(kv, one)
    assert (len(one.kv.state_spans), num_snapshots(kv)) == (1, 0)
    kv.free(one)
    kv.check_integrity(is_idle=True)


def drafted(kv: KVManager, one: Request) -> tuple[int | None, int | None]:
    """A step with a draft of three tokens; the slots before and after the draft."""
    one.token_ids.append(0)
    one.draft = Draft((1, 2, 3), (False,) * 3)
    assert compute(kv, one) == 4
    return one.kv.slot_before_draft, one.kv.state_slot


def test_after_a_draft_that_was_right_its_state_goes_on_and_the_one_before_it_is_free() -> None:
    kv, one = manager(), request([*range(6)])
    compute(kv, one)
    before, after = drafted(kv, one)
    assert [(span.begin, span.end) for span in one.kv.state_spans] == [(6, 7), (7, 10)]
    kv.settle(one, 3, 3)
    assert (one.kv.state_slot, one.kv.slot_before_draft, one.kv.num_computed_tokens) == (after, None, 10)
    assert before != after and kv.states is not None and before is not None and not kv.states.pool.is_used(before)


@pytest.mark.parametrize("num_right", [0, 2])
def test_after_a_draft_that_was_wrong_the_state_before_it_goes_on_and_what_was_right_is_computed_again(
    num_right: int,
) -> None:
    kv, one = manager(), request([*range(6)])
    compute(kv, one)
    before, after = drafted(kv, one)
    kv.settle(one, 3, num_right)
    assert (one.kv.state_slot, one.kv.slot_before_draft, one.kv.num_computed_tokens) == (before, None, 7)
    assert kv.states is not None and after is not None and not kv.states.pool.is_used(after)


def test_of_a_draft_that_nobody_judged_both_states_are_free() -> None:
    kv, one = manager(), request([*range(6)])
    compute(kv, one)
    drafted(kv, one)
    kv.free(one)
    kv.check_integrity(is_idle=True)


def test_a_draft_needs_a_slot_of_its_own() -> None:
    kv, one, two = manager(2), request([*range(6)]), request([*range(100, 106)], 1)
    for each in (one, two):
        compute(kv, each)
    one.token_ids.append(0)
    one.draft = Draft((1, 2), (False,) * 2)
    assert compute(kv, one) is None
    one.draft = Draft()
    assert compute(kv, one) == 1
