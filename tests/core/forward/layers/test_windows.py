"""Layers that see a window of the last tokens, with and without sinks, answer as mlx-lm's rotating caches do."""

from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_agent_llm.core.forward.device import CPU
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from tests.support.model_types import tiny as tiny_models
from tests.support.model_types.configs import config_of
from tests.support.model_types.scenarios import Scenario, all_scenarios
from tests.support.model_types.tiny import tiny
from tests.support.model_types.verdict import Judgement, judge

SCENARIOS = {scenario.name: scenario for scenario in all_scenarios()}
FEW = [SCENARIOS["6 rows, small chunks, late joiners"], SCENARIOS["prefix hits"]]


def judge_window(monkeypatch: pytest.MonkeyPatch, model_type: str, window: int, scenarios: list[Scenario]) -> Judgement:
    def config(model_type: str, *sizes: Any) -> dict[str, Any]:
        return config_of(model_type, *sizes) | {"sliding_window": window}

    monkeypatch.setattr(tiny_models, "config_of", config)
    return judge(model_type, scenarios, prepare=draw_sinks)


def draw_sinks(model: nn.Module) -> None:
    """Sinks as heavy as a few tokens, another one for each head."""
    for name, module in model.named_modules():
        if "sinks" in module:
            module.sinks = 2 + mx.random.normal(module.sinks.shape, key=mx.random.key(len(name)))


@pytest.mark.parametrize("window", [1, 17])
def test_rows_chunks_and_prefix_hits_see_what_the_window_says(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = judge_window(monkeypatch, "gpt_oss", window, FEW)
    assert (judgement.verdict, judgement.reasons) == ("equal", [])


@pytest.mark.long
@pytest.mark.parametrize("window", [1, 7, 15, 16, 17, 33, 79, 80, 81, 100])
@pytest.mark.parametrize("model_type", ["gpt_oss", "gemma3_text", "llama", "recurrent_gemma"])
def test_every_window_in_every_scenario(model_type: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = judge_window(monkeypatch, model_type, window, all_scenarios())
    assert (judgement.verdict, judgement.reasons) == ("equal", [])


def test_layers_of_one_model_have_the_windows_that_their_masks_ask_for() -> None:
    shapes = [shape for shape in probe_model(tiny("gpt_oss")).layers if isinstance(shape, KVShape)]
    assert [shape.window for shape in shapes] == [12, None, 12, None]


@pytest.mark.long  # MLX compiles for a CPU by running a compiler
@pytest.mark.parametrize("model_type", ["gpt_oss", "deepseek_v3", "gemma3n", "afm7"])
def test_windows_latents_and_keys_of_other_layers_are_traced(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = replace(CPU, compiles_rows=True, min_tokens=1, max_row_chunk=16)
    monkeypatch.setattr("mlx_agent_llm.core.forward.runner.profile_here", lambda: profile)
    judgement = judge(model_type, FEW[:1], compile=True)
    assert (judgement.verdict, judgement.reasons) == ("equal", [])
