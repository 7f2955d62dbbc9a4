"""The pacer against a machine whose step times are known."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_agent_llm.core.pacing import PromptPacer


def run(pacer: PromptPacer, seconds: float, token_seconds: float, noise: float, num_steps: int) -> list[float]:
    """Steps with as many prompt tokens as the pacer allows, at most 512; each one's time over that without prompts."""
    rng = random.Random(0)
    slowdowns = []
    for _ in range(num_steps):
        num_tokens = int(min(pacer.limit(), 512))
        took = (seconds + num_tokens * token_seconds) * rng.uniform(1, 1 + noise)
        pacer.observe(num_tokens, took)
        slowdowns.append(took / seconds)
    return slowdowns


@given(seconds=st.floats(1e-3, 1.0), tokens_that_fit=st.floats(16.5, 400), slowdown=st.floats(1.1, 3))
def test_a_step_with_prompts_stays_within_the_slowdown_and_comes_to_use_it(
    seconds: float, tokens_that_fit: float, slowdown: float
) -> None:
    pacer = PromptPacer(slowdown, 16)
    for _ in range(8):
        pacer.observe(0, seconds)
    slowdowns = run(pacer, seconds, seconds * (slowdown - 1) / tokens_that_fit, 0.0, 40)
    assert max(slowdowns) <= slowdown * 1.001
    assert slowdowns[-1] >= 1 + (slowdown - 1) * (int(tokens_that_fit) - 1) / tokens_that_fit


def test_noise_of_the_machine_does_not_let_a_prompt_stall_the_streams() -> None:
    pacer = PromptPacer(1.6, 16)
    for seconds in (0.1, 0.1, 0.5, 0.1, 0.11, 0.12):
        pacer.observe(0, seconds)
    assert max(run(pacer, 0.1, 0.001, 0.2, 200)) < 2.2


def test_a_prompt_gets_a_block_a_step_however_slow_it_makes_it() -> None:
    pacer = PromptPacer(1.05, 16)
    pacer.observe(0, 0.001)
    assert run(pacer, 0.001, 1.0, 0.0, 5) == pytest.approx([1 + 16 * 1000] * 5)


def test_without_a_step_of_streams_alone_there_is_nothing_to_be_slower_than() -> None:
    pacer = PromptPacer(1.6, 16)
    assert pacer.limit() == math.inf
    pacer.observe(512, 1.0)
    assert pacer.limit() == math.inf


def test_the_first_chunks_beside_streams_are_small_and_grow_at_most_twofold() -> None:
    pacer = PromptPacer(2.0, 16)
    pacer.observe(0, 1.0)
    limits = []
    for _ in range(6):
        limits.append(pacer.limit())
        pacer.observe(int(pacer.limit()), 1.0)  # prompt tokens that cost nothing
    assert limits == [16, 32, 64, 128, 256, 512]


def test_no_slowdown_that_is_too_much_gives_prompts_the_whole_budget() -> None:
    pacer = PromptPacer(math.inf, 16)
    pacer.observe(0, 1.0)
    pacer.observe(16, 100.0)
    assert pacer.limit() == math.inf
