"""That "auto" drafts where it is worth it and nowhere else, by a clock of its own: a step takes 1, a row more.

One that is scheduled when the tokens before it are read takes longer, too: one with a draft, and the one after that.
"""

import random
from typing import NamedTuple

import pytest

from mlx_agent_llm.core.schedule.jump_forward import JumpForward
from mlx_agent_llm.core.schedule.speculation.row_costs import RowCosts, StepTime
from mlx_agent_llm.core.schedule.speculation.speculation import Speculation
from mlx_agent_llm.core.schedule.speculation.text_drafter import TextDrafter
from mlx_agent_llm.request import NO_DRAFT, Request, SamplingParams

CHEAP, DEAR = 0.1, 1.0  # rows
NO_OVERLAP = 0.05


class Pace(NamedTuple):
    """What some steps made."""

    tokens_per_time: float
    num_drafted: int


class Clocked:
    """Requests that copy their draft text or say something new, in steps whose time is made up."""

    def __init__(self, num_requests: int, no_overlap: float = NO_OVERLAP) -> None:
        self.rng = random.Random(0)
        self.no_overlap = no_overlap
        self.has_drafted = False
        self.text = tuple(self.rng.randrange(10**6) for _ in range(4000))
        params = SamplingParams(max_tokens=10**6)
        self.requests = [Request(i, [1], params, 0, lambda d: None, draft_text=self.text) for i in range(num_requests)]
        self.speculation = Speculation("auto", JumpForward(None), lambda request: (), 10**6)
        self.new_text()

    def new_text(self) -> None:
        """Let all requests begin to copy from the first token on, as a new one would."""
        for request in self.requests:
            request.token_ids += self.text[:4]
            request.kv.num_computed_tokens = len(request.token_ids) - 1
        self.places = [4] * len(self.requests)
        self.speculation.follow(self.requests)

    def run(self, num_steps: int, row: float, *, copied: int = 10**6, new: int = 0) -> Pace:
        """So many tokens of the text, then so many that are not in it, and so on from another place of the text."""
        time, num_tokens, num_drafted = 0.0, 0, 0
        for _ in range(num_steps):
            is_read = self.has_drafted or self.speculation.needs_tokens((), self.requests)
            if is_read:
                self.speculation.give(self.requests, fail, fail)
            count = sum(len(request.draft.token_ids) for request in self.requests)
            seconds = 1 + row * count + self.no_overlap * is_read
            self.speculation.observe(StepTime(len(self.requests), count, seconds, not is_read))
            self.has_drafted = count > 0
            time, num_drafted = time + seconds, num_drafted + count
            num_tokens += sum(self.take(index, copied, new) for index in range(len(self.requests)))
            self.speculation.follow(self.requests)
        return Pace(num_tokens / len(self.requests) / time, num_drafted)

    def take(self, index: int, copied: int, new: int) -> int:
        """Let a request have its next tokens: those of the draft that are right, and one more."""
        request = self.requests[index]
        draft, request.draft = request.draft.token_ids, NO_DRAFT
        num_tokens = 0
        for expected in (*draft, None):
            said = self.say(index, copied, new)
            request.token_ids.append(said)
            num_tokens += 1
            if said != expected:
                break
        request.kv.num_computed_tokens = len(request.token_ids) - 1
        return num_tokens

    def say(self, index: int, copied: int, new: int) -> int:
        place = self.places[index] = self.places[index] + 1
        if place % (copied + new) >= copied:
            return self.rng.randrange(10**6)
        return self.text[(place // (copied + new) * 977 + place) % len(self.text)]


def fail(*args: object) -> None:
    raise AssertionError(args)


def test_it_drafts_where_rows_are_cheap_and_drafts_are_right() -> None:
    clocked = Clocked(1)
    clocked.run(20, CHEAP)
    assert clocked.run(40, CHEAP).tokens_per_time > 2


def test_where_rows_cost_more_than_they_bring_it_turns_itself_off_and_on_again_when_they_do_not() -> None:
    clocked = Clocked(4)
    assert clocked.run(60, CHEAP).num_drafted > 100
    clocked.run(40, DEAR)
    dear = clocked.run(500, DEAR)
    assert dear.tokens_per_time >= 0.97 and 0 < dear.num_drafted <= 12
    clocked.run(1500, CHEAP)
    assert clocked.run(60, CHEAP).tokens_per_time > 2


def test_it_tries_less_and_less_often_what_rows_cost_that_stay_dear() -> None:
    clocked = Clocked(4)
    early, late = clocked.run(1000, DEAR), clocked.run(3000, DEAR)
    assert 0 < late.num_drafted < early.num_drafted, "in three times as many steps"
    assert late.tokens_per_time >= 0.98


def test_a_text_that_says_something_new_is_as_fast_as_without_and_one_that_copies_again_is_faster() -> None:
    clocked = Clocked(1)
    clocked.run(60, CHEAP)
    free = clocked.run(300, CHEAP, copied=0, new=1)
    assert free.tokens_per_time >= 0.98 and free.num_drafted < 40
    clocked.new_text()
    assert clocked.run(60, CHEAP).tokens_per_time > 2


@pytest.mark.parametrize("num_requests", [1, 16])
def test_a_text_that_copies_little_at_a_time_loses_nothing_where_much_of_a_step_overlaps(num_requests: int) -> None:
    clocked = Clocked(num_requests, no_overlap=1.0)
    clocked.run(200, 0.01, copied=8, new=8)
    assert clocked.run(300, 0.01, copied=8, new=8).tokens_per_time >= 0.98


def test_texts_of_which_nothing_is_worth_its_row_are_not_looked_at_until_something_is() -> None:
    clocked = Clocked(4)
    clocked.run(100, DEAR)
    drafter = clocked.speculation._drafter(clocked.requests[0])
    assert isinstance(drafter, TextDrafter)
    before = len(drafter._token_ids)
    clocked.run(50, DEAR)
    assert len(drafter._token_ids) == before
    clocked.speculation._costs = RowCosts()
    clocked.run(1, CHEAP)
    assert drafter._token_ids[-50:] == clocked.requests[0].token_ids[-50:]
