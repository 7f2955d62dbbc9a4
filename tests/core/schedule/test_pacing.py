"""The pacer against a machine whose step times are known."""

import math
import random
from collections.abc import Callable, Iterable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_agent_llm.core.schedule.pacing import PromptPacer


def run(
    pacer: PromptPacer, seconds: float, token_seconds: float, noise: float = 0.0, fixed_seconds: float = 0.0
) -> list[float]:
    """200 steps with as many prompt tokens as the pacer allows, at most 512: each one's time over that without."""
    rng = random.Random(0)
    slowdowns = []
    for _ in range(200):
        num_tokens = int(min(pacer.limit(), 512))
        took = (seconds + fixed_seconds + num_tokens * token_seconds) * rng.uniform(1, 1 + noise)
        pacer.observe(num_tokens, took)
        slowdowns.append(took / seconds)
    return slowdowns


@given(seconds=st.floats(1e-3, 1.0), tokens_that_fit=st.floats(33, 400), slowdown=st.floats(1.1, 3))
def test_a_step_with_prompts_takes_about_as_long_as_it_may(
    seconds: float, tokens_that_fit: float, slowdown: float
) -> None:
    pacer = PromptPacer(slowdown, 16)
    for _ in range(8):
        pacer.observe(0, seconds)
    slowdowns = run(pacer, seconds, seconds * (slowdown - 1) / tokens_that_fit)
    assert max(slowdowns) <= 1 + 1.55 * (slowdown - 1)
    assert median(slowdowns[20:]) >= 1 + 0.6 * (slowdown - 1)


def test_what_a_prompt_costs_however_short_it_is_does_not_keep_it_short() -> None:
    pacer = PromptPacer(1.6, 16)
    pacer.observe(0, 0.006)
    slowdowns = run(pacer, 0.006, token_seconds=2e-6, fixed_seconds=0.002)
    assert max(slowdowns) < 2
    assert pacer.limit() > 400


def serve_prompts(pacer: PromptPacer, lengths: Iterable[int], took: Callable[[int], float]) -> list[int]:
    """The steps that each prompt takes beside streams, where a step with so many of its tokens takes so long."""
    num_steps = []
    for num_left in lengths:
        steps = 0
        while num_left > 0:
            num_tokens = int(min(pacer.limit(), num_left))
            pacer.observe(num_tokens, took(num_tokens))
            num_left, steps = num_left - num_tokens, steps + 1
        pacer.observe(0, took(0))
        num_steps.append(steps)
    return num_steps


def serve_forty(pacer: PromptPacer, fixed_seconds: float, token_seconds: float, alone: float) -> list[int]:
    """Prompts of 50 to 400 tokens, with a fixed cost of any and a tenth of noise."""
    rng = random.Random(0)

    def took(num_tokens: int) -> float:
        return (alone + fixed_seconds + num_tokens * token_seconds) * rng.uniform(1, 1.1) if num_tokens else alone

    return serve_prompts(pacer, (rng.randrange(50, 400) for _ in range(40)), took)


def test_a_fixed_cost_that_is_more_than_allowed_is_paid_in_few_steps() -> None:
    """A GPU's: 2.5 ms a step, 3 more with any prompt, and hardly anything for its tokens."""
    pacer = PromptPacer(1.6, 16)
    pacer.observe(0, 0.0025)
    num_steps = serve_forty(pacer, 0.003, 1e-5, 0.0025)
    assert max(num_steps[1:]) <= 3
    assert pacer.limit() < 2 * 0.003 / 1e-5  # for 3 ms of tokens at most, but for the next try


@given(fixed=st.floats(0, 20), token=st.floats(0.001, 1))
def test_tokens_never_take_much_longer_than_is_allowed_or_than_the_fixed_cost(fixed: float, token: float) -> None:
    """In units of what is allowed."""
    pacer = PromptPacer(2.0, 16)
    pacer.observe(0, 1.0)
    serve_forty(pacer, fixed, token, 1.0)
    most = max(2 * fixed, 1.0) + 0.1 * (1 + fixed)  # with the noise
    assert (pacer.limit() - 16) * token <= 1.6 * most or pacer.limit() <= 32


@pytest.mark.parametrize("seed", range(5))
def test_a_long_prompt_whose_steps_become_dearer_does_not_stall_the_streams(seed: int) -> None:
    """A CPU's: every step reads the prompt so far, so that its later and shorter chunks take longer."""
    rng, pacer, num_computed = random.Random(seed), PromptPacer(1.6, 16), 0
    pacer.observe(0, 0.1)
    slowdowns = []
    while num_computed < 4096:
        num_tokens = int(min(pacer.limit(), 4096 - num_computed))
        added = 0.008 + 1e-5 * num_computed + num_tokens * (0.0018 + 2e-7 * num_computed)
        took = (0.1 + added) * rng.uniform(1, 1.2)
        pacer.observe(num_tokens, took)
        slowdowns.append(took / 0.1)
        num_computed += num_tokens
    assert max(slowdowns) < 3
    assert median(slowdowns) < 2.2


def test_noise_of_the_machine_does_not_let_a_prompt_stall_the_streams() -> None:
    pacer = PromptPacer(1.6, 16)
    for seconds in (0.1, 0.1, 0.5, 0.1, 0.11, 0.12):
        pacer.observe(0, seconds)
    assert max(run(pacer, 0.1, 0.001, noise=0.2)) < 2.4


def test_one_slow_step_changes_nothing() -> None:
    """One in which a kernel was compiled, say."""
    pacer = PromptPacer(1.6, 16)
    pacer.observe(0, 0.1)
    run(pacer, 0.1, 0.0002)
    before = pacer.limit()
    pacer.observe(int(before), 3.0)
    assert pacer.limit() == pytest.approx(before, rel=0.05)


def test_tokens_that_become_dearer_at_once_are_made_up_for_in_some_steps() -> None:
    pacer = PromptPacer(1.6, 16)
    pacer.observe(0, 0.1)
    run(pacer, 0.1, 0.0005)
    slowdowns = run(pacer, 0.1, 0.002)
    assert max(slowdowns) < 1 + 4 * 0.7
    assert max(slowdowns[10:]) < 1.7


def test_uneven_steps_do_not_keep_chunks_short_where_tokens_cost_nothing() -> None:
    """A GPU's steps beside the threads of those who ask: some take twice as long, some more, whatever is in them."""
    rng, pacer = random.Random(0), PromptPacer(1.6, 16)

    def took(num_tokens: int) -> float:
        if num_tokens == 0:
            return 0.0044 * (1 + rng.expovariate(6))
        late = rng.expovariate(400) + (0.015 if rng.random() < 0.1 else 0.0)
        return 0.0069 + late + num_tokens * 1e-5

    num_steps = serve_prompts(pacer, (rng.randrange(40, 80) for _ in range(72)), took)
    assert sum(num_steps) < 2.2 * len(num_steps)


def test_a_prompt_gets_a_block_a_step_however_slow_it_makes_it() -> None:
    pacer = PromptPacer(1.05, 16)
    pacer.observe(0, 0.001)
    assert run(pacer, 0.001, 1.0)[1:] == pytest.approx([1 + 16 * 1000] * 199)


def test_without_a_step_of_streams_alone_there_is_nothing_to_be_slower_than() -> None:
    pacer = PromptPacer(1.6, 16)
    assert pacer.limit() == math.inf
    pacer.observe(512, 1.0)
    assert pacer.limit() == math.inf


def test_the_first_chunks_beside_streams_are_small_and_grow_by_half() -> None:
    pacer = PromptPacer(2.0, 16)
    pacer.observe(0, 1.0)
    limits = []
    for _ in range(6):
        limits.append(pacer.limit())
        pacer.observe(int(pacer.limit()), 1.0)  # prompt tokens that cost nothing
    assert limits == [32, 48, 72, 108, 162, 243]


def test_a_prompt_shorter_than_allowed_says_nothing_of_longer_ones() -> None:
    pacer = PromptPacer(2.0, 16)
    pacer.observe(0, 1.0)
    for _ in range(6):
        pacer.observe(int(pacer.limit()), 1.0)
    allowed = pacer.limit()
    pacer.observe(20, 1.0)
    assert pacer.limit() == allowed


def test_no_slowdown_that_is_too_much_gives_prompts_the_whole_budget() -> None:
    pacer = PromptPacer(math.inf, 16)
    pacer.observe(0, 1.0)
    pacer.observe(16, 100.0)
    assert pacer.limit() == math.inf
