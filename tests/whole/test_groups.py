"""Models with recurrent layers and with windows say what mlx-lm says, and agents share what is shared of them."""

from collections.abc import Sequence
from functools import lru_cache

import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import EngineConfig, SamplingParams
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.loop import EngineCore, Vocabulary
from mlx_agent_llm.request import Request
from tests.support.model_types.dimensions import VOCAB_SIZE
from tests.support.model_types.tiny import tiny
from tests.support.search import examples
from tests.whole.test_parity import ARRIVALS, Arrival, reference, run_core

MODELS = ["qwen3_next", "mamba2", "rwkv7", "falcon_h1", "recurrent_gemma", "gemma3_text", "gpt_oss", "deepseek_v3"]


@lru_cache
def model_of(model_type: str) -> nn.Module:
    return tiny(model_type)


def prompt_of(arrival: Arrival) -> tuple[int, ...]:
    return tuple(token_id % VOCAB_SIZE for token_id in arrival.prompt)


@lru_cache
def tokens_of(model_type: str, prompt: tuple[int, ...]) -> tuple[int, ...]:
    return reference(model_of(model_type), prompt, 24)


def make_core(model_type: str, max_model_len: int = 512, **config: int | bool) -> EngineCore:
    model = model_of(model_type)
    settings = EngineConfig(check_model=False, **config)  # type: ignore[arg-type]
    return EngineCore(model, probe_model(model), Vocabulary([b""] * VOCAB_SIZE, frozenset()), settings, max_model_len)


@settings(max_examples=examples(15))
@given(
    model_type=st.sampled_from(MODELS),
    arrivals=ARRIVALS,
    block_size=st.sampled_from([4, 16]),
    max_tokens_per_step=st.sampled_from([16, 512]),
    num_spare_tokens=st.sampled_from([0, 48, 1600]),
    prefix_cache=st.sampled_from([True, True, False]),
    state_snapshot_tokens=st.sampled_from([16, 512]),
)
def test_they_say_what_mlx_lm_says_through_any_arrivals_and_preemptions(
    model_type: str, arrivals: list[Arrival], num_spare_tokens: int, **config: int | bool
) -> None:
    arrivals = [Arrival(each.step, 0, prompt_of(each), each.max_tokens) for each in arrivals]
    longest = max(len(arrival.prompt) + arrival.max_tokens for arrival in arrivals)
    core = make_core(model_type, max_num_seqs=8, kv_cache_tokens=longest + num_spare_tokens, **config)
    try:
        outputs = run_core(core, arrivals)
    finally:
        core.close()
    for arrival, output in zip(arrivals, outputs, strict=True):
        expected = tokens_of(model_type, arrival.prompt)[: arrival.max_tokens]
        assert tuple(output[: len(expected)]) == expected
        assert len(output) == arrival.max_tokens


def agents(count: int, num_common: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    system = rng.integers(0, VOCAB_SIZE, num_common).tolist()
    return [system + rng.integers(0, VOCAB_SIZE, 20).tolist() for _ in range(count)]


def run(core: EngineCore, prompts: Sequence[list[int]]) -> None:
    for index, prompt in enumerate(prompts):
        core.add(Request(index, prompt, SamplingParams(max_tokens=4), 0, lambda delta: None))
    while core.has_work:
        assert all(delta.error is None for _, delta in core.step())
    core.check_integrity()


@pytest.mark.parametrize("model_type", ["qwen3_next", "mamba2", "recurrent_gemma", "gemma3_text"])
def test_agents_that_come_together_compute_their_system_prompt_once(model_type: str) -> None:
    core = make_core(model_type, max_model_len=2048, max_num_seqs=16, kv_cache_tokens=4096)
    run(core, agents(16, 1024))
    stats = core.stats()
    assert stats.prefix_hit_tokens == 15 * 1024
    assert stats.num_prompt_tokens_computed == 1024 + 16 * 20


def test_where_the_system_prompt_ends_within_a_block_the_third_agent_finds_what_the_second_left() -> None:
    core = make_core("qwen3_next", max_model_len=2048, max_num_seqs=16, kv_cache_tokens=4096)
    run(core, agents(16, 1000))
    assert core.stats().num_prompt_tokens_computed == 1000 + 992 - 512 + 16 * 20 + 15 * 8


def test_the_memory_of_a_window_is_bounded_whatever_the_context() -> None:
    core = make_core("gemma3_text", max_num_seqs=4, max_tokens_per_step=32, kv_cache_tokens=4096)
    run(core, agents(4, 300))
    stats = core.stats()
    assert stats.num_window_blocks < stats.num_blocks
    layers = core._runner._layers.paged
    assert {len(layer.keys) for layer in layers} == {
        16 * (stats.num_blocks + 1),
        16 * (stats.num_window_blocks + 1),
    }
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) > stats.kv_cache_bytes
    assert 0 < stats.window_cache_bytes < stats.kv_cache_bytes / 2
