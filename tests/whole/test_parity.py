"""Greedy tokens equal mlx-lm's own, whatever the batch, the chunks, the cache and the order of arrival.

In float32 a batch of another shape may round a logit differently, so two tokens that are almost equally probable may
change places. The comparison ends where mlx-lm's own two best logits are that close; on the demo model no prompt is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import BatchGenerator, generate_step

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.core.forward import runner
from mlx_agent_llm.core.forward.device import profile_here
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import tiny_model
from tests.support.search import examples


@pytest.fixture(scope="module", autouse=True)
def all_that_can_be_shared_is() -> Iterator[None]:
    """Models as small as these would not share: the groups are to be part of what is compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "profile_here", lambda: replace(profile_here(), level_bytes=0))
        yield


NEAR_TIE = 1e-4  # of two logits; the error of float32 here is below 1e-5


def reference(model: nn.Module, prompt: Sequence[int], max_tokens: int) -> tuple[int, ...]:
    """mlx-lm's greedy tokens up to the first near tie."""
    tokens: list[int] = []
    for token, logprobs in generate_step(mx.array(list(prompt)), model, max_tokens=max_tokens):
        second, first = np.sort(np.array(logprobs))[-2:]
        if first - second < NEAR_TIE:
            break
        tokens.append(int(token))
    return tuple(tokens)


@lru_cache
def tiny_reference(model_type: str, prompt: tuple[int, ...]) -> tuple[int, ...]:
    return reference(cached_tiny_model(model_type), prompt, 24)


@lru_cache
def cached_tiny_model(model_type: str) -> nn.Module:
    return tiny_model(model_type)


@dataclass(frozen=True)
class Arrival:
    """A prompt of a common beginning and own tokens, and the step at which it comes."""

    step: int
    num_common: int
    own: tuple[int, ...]
    max_tokens: int

    @property
    def prompt(self) -> tuple[int, ...]:
        return (*(7 * i % 251 for i in range(self.num_common)), *self.own)


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        step=st.integers(0, 30),
        num_common=st.sampled_from([0, 5, 16, 33, 80]),
        own=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
        max_tokens=st.integers(1, 24),
    ),
    min_size=1,
    max_size=10,
)


def make_core(model: nn.Module, config: EngineConfig) -> EngineCore:
    return EngineCore(model, probe_model(model), Vocabulary([b""] * 258, frozenset()), config, 512)


def run_core(core: EngineCore, arrivals: Sequence[Arrival]) -> list[list[int]]:
    """Step the core through the arrivals on this thread, so that every run is the same."""
    outputs: list[list[int]] = [[] for _ in arrivals]
    pending = sorted(enumerate(arrivals), key=lambda item: item[1].step)
    step = 0
    while pending or core.has_work:
        while pending and pending[0][1].step <= step:
            index, arrival = pending.pop(0)
            params = SamplingParams(max_tokens=arrival.max_tokens)
            core.scheduler.check(len(arrival.prompt), arrival.max_tokens)
            core.add(Request(index, arrival.prompt, params, 0, lambda delta: None))
        for request, delta in core.step():
            assert delta.error is None
            outputs[request.request_id] += delta.token_ids
        core.check_integrity()
        step += 1
        assert step < 3000, "the core does not come to an end"
    return outputs


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("max_tokens_per_step", [16, 512])
@settings(max_examples=examples(4))
@given(arrivals=ARRIVALS, num_spare_blocks=st.sampled_from([0, 3, 100]))
def test_tiny_models_say_what_mlx_lm_says_through_any_arrivals_and_preemptions(
    model_type: str, prefix_cache: bool, max_tokens_per_step: int, arrivals: list[Arrival], num_spare_blocks: int
) -> None:
    longest = max(len(arrival.prompt) + arrival.max_tokens for arrival in arrivals)
    config = EngineConfig(
        max_num_seqs=8,
        max_tokens_per_step=max_tokens_per_step,
        kv_cache_tokens=longest + 16 * num_spare_blocks,
        prefix_cache=prefix_cache,
    )
    outputs = run_core(make_core(cached_tiny_model(model_type), config), arrivals)
    for arrival, output in zip(arrivals, outputs, strict=True):
        expected = tiny_reference(model_type, arrival.prompt)[: arrival.max_tokens]
        assert len(output) == arrival.max_tokens
        assert tuple(output[: len(expected)]) == expected


def test_a_pool_that_is_too_small_for_all_preempts_and_changes_no_token() -> None:
    arrivals = [Arrival(0, 33, (i % 4, i), 24) for i in range(8)]
    for prefix_cache in (True, False):
        core = make_core(
            cached_tiny_model("llama"),
            EngineConfig(max_num_seqs=8, kv_cache_tokens=144, block_size=4, prefix_cache=prefix_cache),
        )
        outputs = run_core(core, arrivals)
        assert core.stats().num_preemptions > 0
        for arrival, output in zip(arrivals, outputs, strict=True):
            expected = tiny_reference("llama", arrival.prompt)
            assert tuple(output[: len(expected)]) == expected


TEXTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "1, 2, 3, 4, 5, 6,",
    "The opposite of hot is",
    "Monday, Tuesday, Wednesday,",
    "A triangle has three",
    "def add(a, b):\n    return",
    "The sun rises in the",
    "Once upon a time, in a small village by the sea, there lived an old fisherman who every morning went out to",
    "Roses are red, violets are",
    "Two plus two equals",
    "The largest planet in our solar system is",
    "She opened the door and",
    "In the year 1969, the first man",
    "Bees make",
    "To be, or not to be, that is the",
]
SYSTEM = "You are a careful assistant who answers every question in one short and friendly sentence.\n"
NUM_NEW = 8


@dataclass(frozen=True)
class DemoCase:
    prompt: tuple[int, ...]
    expected: tuple[int, ...]


@pytest.fixture(scope="module")
def demo_cases(demo: LoadedModel) -> list[DemoCase]:
    """Every second prompt begins with the same system text, so that the prefix cache has something to find."""
    cases = []
    for index, text in enumerate(TEXTS):
        prompt = tuple(demo.tokenizer.encode(SYSTEM * (index % 2) + text))
        expected = reference(demo.model, prompt, NUM_NEW)
        assert len(expected) == NUM_NEW, f"{text!r} leads to a near tie: choose another prompt"
        cases.append(DemoCase(prompt, expected))
    assert len({len(case.prompt) for case in cases}) > 10
    return cases


def demo_settings(**config: object) -> EngineConfig:
    return EngineConfig(max_num_seqs=16, kv_cache_tokens=2048, **config)  # type: ignore[arg-type]


GREEDY = SamplingParams(max_tokens=NUM_NEW, ignore_eos=True)


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("max_tokens_per_step", [16, 512])
def test_the_demo_model_says_what_mlx_lm_says_for_1_4_and_16_prompts(
    demo: LoadedModel, demo_cases: list[DemoCase], max_tokens_per_step: int, prefix_cache: bool
) -> None:
    with Engine(demo, demo_settings(max_tokens_per_step=max_tokens_per_step, prefix_cache=prefix_cache)) as engine:
        for cases in (demo_cases[:1], demo_cases[1:5], demo_cases):
            outputs = engine.generate([case.prompt for case in cases], GREEDY)
            assert [output.token_ids for output in outputs] == [case.expected for case in cases]
        assert (engine.stats().prefix_hit_tokens > 0) == prefix_cache


@pytest.mark.parametrize("max_tokens_per_step", [16, 512])
def test_late_joiners_of_the_demo_model_say_what_mlx_lm_says_and_disturb_nobody(
    demo: LoadedModel, demo_cases: list[DemoCase], max_tokens_per_step: int
) -> None:
    with Engine(demo, demo_settings(max_tokens_per_step=max_tokens_per_step)) as engine:
        early = [engine.stream(case.prompt, GREEDY) for case in demo_cases[:3]]
        tokens = [list(next(stream).token_ids) for stream in early]  # all of them decode by now
        late = [engine.submit(case.prompt, GREEDY) for case in demo_cases[3:]]
        for own, stream in zip(tokens, early, strict=True):
            own += [token for delta in stream for token in delta.token_ids]
        found = [tuple(own) for own in tokens] + [handle.result().token_ids for handle in late]
        assert found == [case.expected for case in demo_cases]


def test_the_demo_model_says_what_mlx_lms_batch_generator_says(
    demo: LoadedModel, demo_cases: list[DemoCase], demo_engine: Engine
) -> None:
    generator = BatchGenerator(demo.model, max_tokens=NUM_NEW)
    uids = generator.insert([list(case.prompt) for case in demo_cases])
    batched: dict[int, list[int]] = {uid: [] for uid in uids}
    while any(len(tokens) < NUM_NEW for tokens in batched.values()):
        for response in generator.next_generated():
            batched[response.uid].append(response.token)
    generator.close()
    outputs = demo_engine.generate([case.prompt for case in demo_cases], GREEDY)
    assert [list(output.token_ids) for output in outputs] == [batched[uid] for uid in uids]


def test_sixteen_agents_of_the_demo_model_compute_their_shared_prompt_once(demo: LoadedModel) -> None:
    shared = demo.tokenizer.encode(SYSTEM * 8)
    prompts = [[*shared, *demo.tokenizer.encode(f"Question {number}: what is {number} + 1?")] for number in range(16)]
    num_shared_blocks = len(shared) // 16
    own_tokens = sum(len(prompt) - num_shared_blocks * 16 for prompt in prompts)
    with Engine(demo, demo_settings()) as engine:
        outputs = engine.generate(prompts, SamplingParams(max_tokens=2, ignore_eos=True))
        stats = engine.stats()
        assert stats.num_prompt_tokens_computed == num_shared_blocks * 16 + own_tokens
        assert stats.prefix_hit_tokens == 15 * num_shared_blocks * 16
        assert [output.usage.cached_tokens for output in outputs] == [0] + [num_shared_blocks * 16] * 15
        assert stats.peak_shared_blocks >= num_shared_blocks
