"""Modules that attend themselves: which they are, what they are given of a sequence, and that they answer as ever."""

import mlx.core as mx
import pytest

from mlx_agent_llm.core.forward.layers.gathered import GatheredLayer
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape
from tests.support.model_types.scenarios import all_scenarios
from tests.support.model_types.tiny import tiny
from tests.support.model_types.verdict import judge


@pytest.mark.parametrize("model_type", ["plamo", "minimax_m3_vl", "deepseek_v32", "llama4"])
def test_they_answer_as_mlx_lm_does(model_type: str) -> None:
    """They order heads, choose blocks, choose tokens, and see the chunk that they are in."""
    judgement = judge(model_type, all_scenarios()[2:4])
    assert (judgement.verdict, judgement.reasons) == ("equal", [])


def test_they_are_found_with_their_layers() -> None:
    shape = probe_model(tiny("plamo"))
    assert all(layer.is_gathered for layer in shape.layers if isinstance(layer, KVShape))
    assert {type(module).__name__ for module in shape.gathered_modules} == {"Attention"}
    assert len(shape.gathered_modules) == len(shape.layers)


def test_a_model_that_attends_through_mlx_lm_has_none() -> None:
    assert probe_model(tiny("llama")).gathered_modules == ()


@pytest.mark.parametrize(
    ("window", "is_chunked", "seen"),
    [(None, False, [0, 0, 0, 0]), (3, False, [0, 0, 1, 7]), (3, True, [0, 0, 3, 9])],
)
def test_the_first_token_that_is_seen(window: int | None, is_chunked: bool, seen: list[int]) -> None:
    shape = KVShape(1, 2, 2, mx.float32, window, is_chunked, is_gathered=True)
    layer = GatheredLayer(shape, 1, 4)
    assert [layer.first_seen(position) for position in (0, 2, 3, 9)] == seen
