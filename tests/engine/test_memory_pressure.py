"""What an engine gives back when the system has too little memory, and that nobody's text changes with it."""

from collections.abc import Callable

import mlx.core as mx
import pytest

from mlx_agent_llm import Engine, EngineConfig, RequestOutput, SamplingParams
from mlx_agent_llm.core.forward.layers.state import StateLayer
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.process import memory_pressure
from mlx_agent_llm.testing import ByteTokenizer, tiny_model
from tests.support.model_types.configs import config_of

PARAMS = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)
PROMPTS = [[3 + i % 50 for i in range(start, start + length)] for start, length in ((0, 70), (7, 20), (0, 45))]


@pytest.fixture
def set_pressure(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """As often as it is asked for."""
    monkeypatch.setattr(memory_pressure, "_SECONDS", 0.0)
    return lambda is_high: monkeypatch.setattr(memory_pressure, "is_high", lambda: is_high)


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [list(output.token_ids) for output in outputs]


def num_kept_states(engine: Engine) -> int:
    layers = engine._worker.core._runner._layers.states
    assert all(isinstance(layer, StateLayer) for layer in layers)
    return sum(len(layer._places) for layer in layers)


@pytest.mark.parametrize("model_type", ["llama", "falcon_h1"])
def test_under_pressure_freed_buffers_and_snapshots_go_and_the_text_stays(
    model_type: str, set_pressure: Callable[[bool], None]
) -> None:
    set_pressure(False)
    config = EngineConfig(device="cpu", state_snapshot_tokens=16)
    model = tiny_model(**config_of(model_type) | {"vocab_size": ByteTokenizer.vocab_size})
    with Engine(from_parts(model, ByteTokenizer()), config) as engine:
        expected = tokens(engine.generate(PROMPTS, PARAMS))
        assert engine.stats().num_memory_reliefs == 0
        has_states = engine.stats().num_state_snapshots > 0
        assert has_states == (model_type != "llama")
        num_cached, num_kept = engine.stats().num_cached_blocks, num_kept_states(engine)
        set_pressure(True)
        assert tokens(engine.generate(PROMPTS, PARAMS)) == expected
        stats = engine.stats()
        assert stats.num_memory_reliefs > 0
        assert stats.num_state_snapshots == 0
        assert stats.num_cached_blocks >= num_cached > 0, "cached blocks would free nothing"
        assert num_kept_states(engine) < num_kept or not has_states


@pytest.mark.skipif(mx.cuda.is_available(), reason="CUDA's arrays are freed by a thread, some time after")
def test_mlx_s_cache_is_empty_afterwards() -> None:
    engine = Engine(from_parts(tiny_model(), ByteTokenizer()), EngineConfig(device="cpu"))
    held: list[tuple[int, int]] = []

    def relieve(core: EngineCore) -> None:
        mx.eval(mx.zeros(10**6))
        before = mx.get_cache_memory()
        core.relieve_memory()
        held.append((before, mx.get_cache_memory()))

    with engine:
        engine._worker.call(relieve)
    [(before, after)] = held
    assert before > after == 0
