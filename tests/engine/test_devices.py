"""An engine computes on the device of its config, whatever MLX's default device is, and leaves that as it is."""

import threading
from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

PARAMS = SamplingParams(max_tokens=12, logprobs=2, temperature=1.0, seed=1)
CONFIG = EngineConfig(device="cpu", kv_cache_tokens=1024)
NOWHERE = mx.Device(mx.cpu, 7)  # MLX can name it, and builds nothing there


@pytest.fixture
def device_of_before() -> Iterator[None]:
    before = mx.default_device()
    yield
    mx.set_default_device(before)


def default_in_another_thread() -> mx.Device:
    seen: list[mx.Device] = []
    thread = threading.Thread(target=lambda: seen.append(mx.default_device()))
    thread.start()
    thread.join()
    return seen[0]


def test_an_engine_leaves_the_default_device_as_it_was_before_while_and_after_it_runs(device_of_before: None) -> None:
    loaded = from_parts(tiny_model(), ByteTokenizer())
    with Engine(loaded, CONFIG) as engine:
        expected = [output.token_ids for output in engine.generate(["x", "other"], PARAMS)]
    mx.set_default_device(NOWHERE)
    with pytest.raises(IndexError):
        mx.zeros(3) + 1
    with Engine(loaded, CONFIG) as engine:
        assert mx.default_device() == default_in_another_thread() == NOWHERE
        assert [output.token_ids for output in engine.generate(["x", "other"], PARAMS)] == expected
        assert mx.default_device() == NOWHERE
        stream = engine.stream("x", PARAMS)
        next(stream)
        assert default_device.own == NOWHERE
        assert tuple(token_id for delta in stream for token_id in delta.token_ids) == expected[0][1:]
        mx.set_default_device(mx.Device(mx.cpu, 8))
        assert engine.generate(["x"], PARAMS)[0].token_ids == expected[0]
        assert engine.stats().attention_backend == "reference"
    assert mx.default_device() == default_in_another_thread() == mx.Device(mx.cpu, 8)


def test_a_reset_of_the_pools_does_not_need_the_default_device(device_of_before: None) -> None:
    with Engine(from_parts(tiny_model(), ByteTokenizer()), CONFIG) as engine:
        expected = engine.generate(["x"], PARAMS)[0].token_ids
        mx.set_default_device(NOWHERE)
        engine._worker.call(lambda core: core._runner.reset())
        engine.reset_prefix_cache()
        assert engine.generate(["x"], PARAMS)[0].token_ids == expected
