"""With drafts, right ones and lies, a request says token for token what it says without.

On the exact model every logit is the same however many rows a step has, and everything is compared. On real ones a step
of another shape may round a logit otherwise, so that two tokens that are almost equally probable change places: these
are compared in float32 on prompts that meet no such tie.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from mlx_agent_llm import Engine, EngineConfig, JSONSchema, SamplingParams
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.request import Request
from tests.support.asks import Key, compare, make_ask, run
from tests.support.cores import make_core
from tests.support.cores import run as run_core
from tests.support.drafters import tell
from tests.support.exact_model import ExactModel
from tests.support.model_types.tiny import tiny

MODEL = ExactModel()
CONFIGS: list[dict[str, Any]] = [
    {"max_num_seqs": 16, "max_tokens_per_step": 64},
    {"max_num_seqs": 8, "max_tokens_per_step": 24, "kv_cache_tokens": 256, "block_size": 8},
    {"max_num_seqs": 8, "max_tokens_per_step": 64, "kv_cache_tokens": 512, "block_size": 1},
    {
        "max_num_seqs": 4,
        "max_tokens_per_step": 48,
        "kv_cache_tokens": 160,
        "prefix_cache": False,
        "jump_forward": False,
    },
]


class Oracle:
    """Drafts what a request will say, and now and then a lie; what it will say is known of a run without drafts."""

    def __init__(self, truth: dict[Key, tuple[int, ...]], rng: random.Random, lies: float) -> None:
        self.truth, self.rng, self.lies = truth, rng, lies

    def say(self, request: Request, count: int, vocab_size: int = 258) -> list[int]:
        said = self.truth[tuple(request.prompt_token_ids), request.seed][request.num_output_tokens :]
        drafts = [*said, *self.rng.choices(range(vocab_size), k=count)][: self.rng.randint(0, count)]
        return [self.rng.randrange(vocab_size) if self.rng.random() < self.lies else one for one in drafts]


def check(make_engine: Callable[..., Engine], rng: random.Random, config: dict[str, Any], count: int) -> Engine:
    """Compare `count` random requests with what they say without drafts; the engine that drafted."""
    asks = [make_ask(rng, seed) for seed in range(count)]
    plain = make_engine(MODEL, speculation="off", **config)
    expected = [outputs[0] for outputs in run(plain, [replace(ask, way="result") for ask in asks])]
    truth = {ask.key: output.token_ids for ask, output in zip(asks, expected, strict=True)}
    oracle = Oracle(truth, rng, lies=rng.choice([0.0, 0.1, 0.5]))
    engine = make_engine(MODEL, speculation=rng.choice([1, 4, 12]), **config)
    tell(engine._worker.core, oracle.say)
    compare(asks, run(engine, asks), expected)
    return engine


@pytest.mark.parametrize("count", [12, pytest.param(130, marks=pytest.mark.long)])
@pytest.mark.parametrize("config", CONFIGS)
def test_random_requests_say_with_drafts_what_they_say_without(
    make_engine: Callable[..., Engine], config: dict[str, Any], count: int
) -> None:
    stats = check(make_engine, random.Random(count), config, count).stats()
    assert stats.num_drafted_tokens > stats.num_accepted_tokens > 0


KINDS = [
    *("qwen3", "gemma3_text", "deepseek_v2", "mamba2"),
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("gpt_oss", "qwen3_next")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_real_attention_windows_latents_and_states_say_the_same(kind: str) -> None:
    """Greedy, with preemptions, and then from what the first round left; none of these prompts meets a near tie."""
    config: dict[str, Any] = {"block_size": 2, "kv_cache_tokens": 96}
    plain, core = make_core(tiny(kind), speculation="off", **config), make_core(tiny(kind), speculation=6, **config)
    prompts = [[7 * i % 100 for i in range(length)] for length in (9, 40, 70, 14)]
    for _ in range(2):
        expected = run_core(plain, *prompts)
        truth = {(tuple(prompt), 0): tuple(said) for prompt, said in zip(prompts, expected, strict=True)}
        oracle = Oracle(truth, random.Random(0), lies=0.3)
        tell(core, partial(oracle.say, vocab_size=128))
        assert run_core(core, *prompts, each_step=core.check_integrity) == expected
        prompts = [[*prompt, *said] for prompt, said in zip(prompts, expected, strict=True)]
    stats = core.stats()
    assert stats.num_drafted_tokens > stats.num_accepted_tokens >= 20
    assert stats.num_preemptions > 0 and core.kv_manager.stats.hit_tokens > 100


@pytest.mark.long
@pytest.mark.parametrize("config", [{"speculation": 4}, {"speculation": "auto"}])
def test_the_demo_model_says_the_same_to_random_requests(demo: LoadedModel, config: dict[str, Any]) -> None:
    """None of these meets a near tie. What is drafted comes from their own texts."""
    rng = random.Random(0)
    asks = [make_ask(rng, seed) for seed in range(20)]
    room = {"kv_cache_tokens": 1024, "max_num_seqs": 8}
    with Engine(demo, EngineConfig(**room)) as plain:
        expected = [outputs[0] for outputs in run(plain, [replace(ask, way="result") for ask in asks])]
    with Engine(demo, EngineConfig(**room, **config)) as engine:
        compare(asks, run(engine, asks), expected, tolerance=1e-3)
        stats = engine.stats()
    if config["speculation"] != "auto":  # that one hangs on measured times
        assert stats.num_drafted_tokens > stats.num_accepted_tokens > 20


@pytest.mark.long
@pytest.mark.parametrize("config", [{"speculation": 4}, {"speculation": "auto"}, {"draft_model": "demo"}])
def test_the_demo_model_says_the_same_sampled_greedy_and_within_a_schema(
    demo: LoadedModel, config: dict[str, Any]
) -> None:
    """None of these prompts meets a near tie. The model itself is a draft model that is nearly always right."""
    text = "The harbour of Bergen opens at six in the morning, and the market begins at eight."
    schema = {"type": "object", "properties": {"place": {"enum": ["Bergen", "Oslo"]}}, "required": ["place"]}
    fields: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.8, "seed": 3},
        {"temperature": 0.0, "frequency_penalty": 0.5, "draft_text": text},
        {"temperature": 0.0, "constraint": JSONSchema(schema)},
    ]
    params = [SamplingParams(max_tokens=40, **one) for one in fields]
    prompts = [f"{text} {text} Repeat that: {text[:20]}"] * len(params)
    with Engine(demo, EngineConfig(kv_cache_tokens=2048)) as engine:
        expected = [output.token_ids for output in engine.generate(prompts, params)]
    with Engine(demo, EngineConfig(kv_cache_tokens=2048, **({"speculation": 4} | config))) as engine:
        for _ in range(2):
            assert [output.token_ids for output in engine.generate(prompts, params)] == expected
        stats = engine.stats()
    if config.get("speculation") != "auto":  # that one hangs on measured times
        assert stats.num_accepted_tokens > 20
