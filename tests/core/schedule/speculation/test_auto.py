"""That "auto" drafts where it is worth it and nowhere else, by a clock of its own: a step takes 1, a row more."""

import random
from typing import NamedTuple

from mlx_agent_llm.core.schedule.jump_forward import JumpForward
from mlx_agent_llm.core.schedule.speculation.speculation import Speculation
from mlx_agent_llm.request import NO_DRAFT, Request, SamplingParams

CHEAP, DEAR = 0.1, 2.0  # rows
NO_OVERLAP = 0.05  # what a step with a draft takes beside its rows


class Pace(NamedTuple):
    """What some steps made."""

    tokens_per_time: float
    num_drafted: int


class Clocked:
    """Requests that copy their draft text or say something new, in steps whose time is made up."""

    def __init__(self, num_requests: int) -> None:
        self.rng = random.Random(0)
        self.text = tuple(self.rng.randrange(10**6) for _ in range(4000))
        params = SamplingParams(max_tokens=10**6)
        self.requests = [Request(i, [1], params, 0, lambda d: None, draft_text=self.text) for i in range(num_requests)]
        self.speculation = Speculation("auto", JumpForward(None), lambda request: (), 10**7)
        self.new_text()

    def new_text(self) -> None:
        """Let all requests begin to copy from the first token on, as a new one would."""
        for request in self.requests:
            request.token_ids += self.text[:4]
            request.kv.num_computed_tokens = len(request.token_ids) - 1
        self.num_copied = [4] * len(self.requests)
        self.speculation.follow(self.requests)

    def run(self, num_steps: int, row: float, *, copies: bool) -> Pace:
        time, num_tokens, num_drafted = 0.0, 0, 0
        for _ in range(num_steps):
            if self.speculation.needs_tokens((), self.requests):
                self.speculation.give(self.requests, fail, fail)
            count = sum(len(request.draft.token_ids) for request in self.requests)
            seconds = 1 + row * count + NO_OVERLAP * bool(count)
            self.speculation.observe(len(self.requests), count, seconds)
            time, num_drafted = time + seconds, num_drafted + count
            num_tokens += sum(self.take(index, copies=copies) for index in range(len(self.requests)))
            self.speculation.follow(self.requests)
        return Pace(num_tokens / len(self.requests) / time, num_drafted)

    def take(self, index: int, *, copies: bool) -> int:
        """Let a request have its next tokens: those of the draft that are right, and one more."""
        request, begin = self.requests[index], self.num_copied[index]
        draft, request.draft = request.draft.token_ids, NO_DRAFT
        if begin + len(draft) + 1 > len(self.text):
            begin = self.num_copied[index] = 0
        says = list(self.text[begin : begin + len(draft) + 1]) if copies else [self.rng.randrange(10**6)]
        num_right = next((i for i, one in enumerate(draft) if i == len(says) or one != says[i]), len(draft))
        request.token_ids += says[: num_right + 1]
        request.kv.num_computed_tokens = len(request.token_ids) - 1
        self.num_copied[index] += num_right + 1 if copies else 0
        return num_right + 1


def fail(*args: object) -> None:
    raise AssertionError(args)


def test_it_drafts_where_rows_are_cheap_and_drafts_are_right() -> None:
    clocked = Clocked(1)
    clocked.run(20, CHEAP, copies=True)
    assert clocked.run(40, CHEAP, copies=True).tokens_per_time > 2


def test_where_rows_cost_more_than_they_bring_it_turns_itself_off_and_on_again_when_they_do_not() -> None:
    clocked = Clocked(4)
    assert clocked.run(60, CHEAP, copies=True).num_drafted > 100
    clocked.run(40, DEAR, copies=True)
    dear = clocked.run(500, DEAR, copies=True)
    assert dear.tokens_per_time >= 0.97 and 0 < dear.num_drafted <= 6
    clocked.run(1000, CHEAP, copies=True)
    assert clocked.run(60, CHEAP, copies=True).tokens_per_time > 2


def test_a_text_that_says_something_new_is_as_fast_as_without_and_one_that_copies_again_is_faster() -> None:
    clocked = Clocked(1)
    clocked.run(60, CHEAP, copies=True)
    free = clocked.run(300, CHEAP, copies=False)
    assert free.tokens_per_time >= 0.98 and free.num_drafted < 40
    clocked.new_text()
    assert clocked.run(60, CHEAP, copies=True).tokens_per_time > 2
