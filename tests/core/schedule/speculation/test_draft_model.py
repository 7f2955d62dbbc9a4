"""A small model that drafts: no token of the output is another one for it, whatever it says."""

from itertools import islice
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_agent_llm import EngineConfig, UnsupportedModelError
from mlx_agent_llm.core.schedule.speculation.draft_model import DraftModel
from mlx_agent_llm.request import Request, SamplingParams
from tests.support.cores import make_core, run
from tests.support.model_types.tiny import tiny

PROMPTS = [[11 * i * i % 101 for i in range(length)] for length in (9, 40, 14)]


def drafts_of(model: nn.Module, max_tokens: int = 100) -> DraftModel:
    return DraftModel(model, 128, max_tokens, mx.default_device())


@pytest.mark.parametrize("kind", ["qwen3", "qwen2"])
def test_a_request_says_with_a_draft_model_what_it_says_without_one(kind: str) -> None:
    """The same model is nearly always right, and another one wrong."""
    expected = run(make_core(tiny("qwen3"), speculation="off"), *PROMPTS)
    core = make_core(tiny("qwen3"), draft_model=tiny(kind), speculation=3)
    assert run(core, *PROMPTS, each_step=core.check_integrity) == expected
    stats = core.stats()
    share = stats.num_accepted_tokens / stats.num_drafted_tokens
    assert share >= 0.9 if kind == "qwen3" else share < 0.5
    assert stats.num_steps < 20 or kind != "qwen3"


def test_one_token_a_step_is_drafted_where_one_is_asked_for() -> None:
    core = make_core(tiny("qwen3"), draft_model=tiny("qwen3"), speculation=1)
    run(core, *PROMPTS)
    assert core.stats().num_accepted_tokens > 0


def test_what_it_says_hangs_on_the_request_alone_whatever_was_drafted_before() -> None:
    model = tiny("qwen3")
    request = Request(0, PROMPTS[1], SamplingParams(), 0, lambda delta: None)
    drafter = drafts_of(model).drafter(request)
    for wrong in (5, 9, 3):
        fresh = drafts_of(model).drafter(request)
        assert drafter.tokens(4) == fresh.tokens(4)
        request.token_ids += [wrong, 2 * wrong]
        drafter.follow()


def test_its_chance_is_what_was_right_of_what_it_said_and_is_forgotten_where_nobody_asks() -> None:
    request = Request(0, PROMPTS[1], SamplingParams(), 0, lambda delta: None)
    drafter = drafts_of(tiny("qwen3")).drafter(request)
    first, second = islice(drafter.outlook(is_read=False).chances, 2)
    assert second == pytest.approx(first**2)
    for _ in range(20):
        said = drafter.tokens(1)[0]
        request.token_ids.append((said + 1) % 128)
        drafter.follow()
    low = drafter._model.chance
    assert low < 0.5 * first
    for _ in range(300):
        request.token_ids.append(len(request.token_ids) % 128)
        drafter.follow()
    assert first >= drafter._model.chance > 0.9 * first


def test_beyond_the_room_for_its_caches_it_drafts_nothing() -> None:
    drafts = drafts_of(tiny("qwen3"), max_tokens=50)
    requests = [Request(i, prompt, SamplingParams(), 0, lambda delta: None) for i, prompt in enumerate(PROMPTS)]
    long, short = drafts.drafter(requests[1]), drafts.drafter(requests[2])
    assert len(long.tokens(3)) == 3 and short.tokens(3) == []
    del long
    assert len(short.tokens(3)) == 3


@pytest.mark.parametrize("kind", ["mamba2", "gemma3_text"])
def test_a_model_that_cannot_go_back_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"draft_model of .* cannot go back"):
        drafts_of(tiny(kind))


@pytest.mark.parametrize("value", ["", 3, b"demo"])
def test_a_bad_name_of_a_draft_model_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"draft_model=.* must be the name of a model or None"):
        EngineConfig(speculation="auto", draft_model=value)  # type: ignore[arg-type]


def test_a_draft_model_that_nobody_would_ask_is_an_error() -> None:
    with pytest.raises(ValueError, match="draft_model='demo' needs speculation='auto' or a number of tokens"):
        EngineConfig(speculation="off", draft_model="demo")


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("qwen3_5", "mtp.layers.0.self_attn.q_proj.weight"),
        ("deepseek_v3", "model.layers.61.eh_proj.weight"),
        ("glm4_moe", "model.layers.4.eh_proj.weight"),
        ("mimo", "model.mtp_layers.0.input_proj.weight"),
    ],
)
def test_mlx_lm_loads_no_head_that_predicts_several_tokens(kind: str, weight: str) -> None:
    """Where this fails, such a head can be a source of drafts, and docs/speculation.md says that it cannot."""
    model: Any = tiny(kind)
    assert not any("mtp" in name or "eh_proj" in name for name, _ in model.named_modules())
    assert model.sanitize({weight: mx.zeros((2, 2))}) == {}
