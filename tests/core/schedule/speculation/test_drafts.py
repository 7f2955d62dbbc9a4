"""Where drafts come from, how long they are, and what of one counts."""

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import EngineConfig, RequestError, SamplingParams
from mlx_agent_llm.core.output.verification import Verdict, forced_after, verify
from mlx_agent_llm.core.schedule.speculation.ngram_index import NgramIndex
from mlx_agent_llm.core.schedule.speculation.row_costs import RowCosts, StepTime
from mlx_agent_llm.core.schedule.speculation.text_drafter import TextDrafter
from mlx_agent_llm.request import NO_DRAFT, Draft, Request
from tests.support.search import examples


def make_request(prompt: list[int], draft_text: tuple[int, ...] = ()) -> Request:
    request = Request(0, prompt, SamplingParams(), 0, lambda delta: None)
    request.draft_text = draft_text
    return request


def longest_by_hand(tokens: list[int]) -> int:
    """How many of the last tokens stand somewhere before."""
    ends = range(1, len(tokens))
    equal = [next((n for n in range(end) if tokens[end - 1 - n] != tokens[-1 - n]), end) for end in ends]
    return max((n for n in equal if n >= 2), default=0)


@settings(max_examples=examples(50))
@given(tokens=st.lists(st.integers(0, 2), min_size=1, max_size=9), more=st.lists(st.integers(0, 2), max_size=3))
def test_the_longest_match_is_found_while_the_text_grows(tokens: list[int], more: list[int]) -> None:
    text = list(tokens)
    index = NgramIndex(text)
    index.grow()
    for token_id in [None, *more]:
        text += [] if token_id is None else [token_id]
        index.grow()
        match = index.longest()
        assert (match.length if match else 0) == longest_by_hand(text)
        if match:
            assert text[match.end - match.length : match.end] == text[-match.length :] and match.end < len(text)


def test_an_index_of_a_long_text_knows_its_later_part_alone() -> None:
    rng = random.Random(0)
    text = [rng.randrange(10**6) for _ in range(100)]
    index = NgramIndex(text, max_pairs=40)
    index.grow()
    for copied, is_known in ((slice(0, 2), False), (slice(90, 92), True)):
        text += text[copied]
        index.grow()
        assert (index.longest() is not None) == is_known
    assert len(index._latest) <= 40


def test_a_drafter_goes_on_as_its_text_did_and_learns_how_often_that_is_right() -> None:
    request = make_request([1, 2, 3, 4, 5, 6, 7, 9])
    drafter = TextDrafter(request)
    drafter.follow()
    assert drafter.tokens(3) == [] and list(drafter.outlook(is_read=True).chances) == []
    request.token_ids += [2, 3]
    drafter.follow()
    assert drafter.tokens(3) == [4, 5, 6]
    first, second, third = islice(drafter.outlook(is_read=True).chances, 3)
    assert first > second > third
    begin, chances = drafter.outlook(is_read=False)
    assert begin == first and begin * next(chances) == second
    request.token_ids += [8, 2, 3]
    drafter.follow()
    assert next(drafter.outlook(is_read=True).chances) < first  # it was wrong


def test_a_match_that_reaches_the_end_goes_on_with_itself() -> None:
    request = make_request([5, 1, 2, 1, 2])
    drafter = TextDrafter(request)
    request.token_ids += [1, 2]
    drafter.follow()
    assert drafter.tokens(5) == [1, 2, 1, 2, 1]


def test_draft_text_is_expected_from_the_first_token_on() -> None:
    assert TextDrafter(make_request([1], (7, 8, 9))).tokens(2) == [7, 8]


def test_a_draft_is_never_cut_before_a_forced_token() -> None:
    draft = Draft((1, 2, 3, 4), (False, True, True, False))
    assert draft.places == [0, 3, 4] and draft.cut(9) == draft
    assert draft.cut(3) == Draft((1, 2, 3), (False, True, True))
    assert draft.cut(2) == draft.cut(1) == draft.cut(-1) == NO_DRAFT


def test_what_was_sampled_counts_up_to_the_first_token_that_the_draft_does_not_have() -> None:
    plain, drafted = make_request([1]), make_request([1])
    drafted.draft = Draft((1, 2, 3, 4), (False, True, True, False))
    for token_ids, num_rows, num_right in (([9, 1, 4, 5], 3, 4), ([9, 1, 7, 4], 2, 3), ([9, 2, 4, 5], 1, 0)):
        assert verify([plain, drafted, drafted, drafted], token_ids) == [
            Verdict(plain, 0, 1, 0),
            Verdict(drafted, 1, num_rows, num_right),
        ]
    assert (forced_after(drafted.draft, 0), forced_after(drafted.draft, 3)) == ((2, 3), ())


def observe(costs: RowCosts, num_draft_tokens: int, seconds: float, *, is_overlapped: bool = False) -> None:
    costs.observe(StepTime(1, num_draft_tokens, seconds, is_overlapped))


def test_the_cost_of_a_row_is_found_among_steps_that_are_slow_for_other_reasons() -> None:
    costs, rng = RowCosts(), random.Random(0)
    assert costs.of(1) is None and not costs.is_tried(1)
    for count in range(40):
        noise = rng.choice([1.0, 1.0, 1.0, 3.0])
        observe(costs, 0, 0.06 * noise, is_overlapped=True)
        observe(costs, 1 + count % 8, (0.08 + 0.01 * (1 + count % 8)) * noise)
        observe(costs, 0, 0.08 * noise)
    cost = costs.of(1)
    assert cost is not None and costs.of(16) is None
    assert cost.alone == pytest.approx(0.06) and cost.row == pytest.approx(0.01, rel=0.3)
    assert cost.fixed == pytest.approx(0.08, rel=0.3)


def test_steps_for_whose_rows_mlx_compiles_say_nothing_of_what_rows_cost() -> None:
    costs = RowCosts()
    for seconds in (0.8, *[0.002] * 6):
        observe(costs, 0, seconds, is_overlapped=True)
    for count in range(1, 6):
        observe(costs, count, 0.8)
        observe(costs, count, 0.0022)
    cost = costs.of(1)
    assert cost is not None and cost.fixed < 0.0025 and cost.row < 0.0005


@pytest.mark.parametrize("value", [-1, 0, 65, True, 1.5, "on", None])
def test_a_bad_number_of_drafted_tokens_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=f"speculation={value!r} must be"):
        EngineConfig(speculation=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", 3, ["text"], b"text"])
def test_a_bad_draft_text_is_named(value: object) -> None:
    with pytest.raises(RequestError, match=r"draft_text=.* must be a non-empty text or None"):
        SamplingParams(draft_text=value)  # type: ignore[arg-type]
