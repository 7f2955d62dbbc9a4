"""What a forward writes and what it leaves alone: the pools' memory, the padding, the model's modules."""

import gc
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.generate import generate_step

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.core.batch.batch import Batch
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.forward.device import CPU, CUDA, METAL, DeviceProfile
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core, run
from tests.support.modules import looks


def test_a_forward_writes_the_pools_in_place(on_the_cpu: None) -> None:
    core = make_core(tiny_model())
    layers: list[PagedLayer] = core._runner._layers.paged
    addresses = set()

    def note() -> None:
        mx.eval([pool for layer in layers for pool in (layer.keys, layer.values)])
        for pool in (layer.keys for layer in layers):
            addresses.add(np.array(pool, copy=False).ctypes.data)

    note()
    run(core, list(range(150)), list(range(30)), each_step=note)
    assert len(addresses) == len(layers)


def test_padding_is_computed_beside_a_lone_row_and_leaves_the_pools_alone(on_the_cpu: None) -> None:
    model, seen = tiny_model(), []
    core = make_core(model, kv_cache_tokens=32)
    layer = core._runner._layers.paged[0]
    write = layer.write

    def recorded_write(slots: mx.array, keys: mx.array, values: mx.array) -> None:
        seen.append(np.array(slots).tolist())
        write(slots, keys, values)

    layer.write = recorded_write  # type: ignore[method-assign]
    run(core, [1, 2, 3])
    decode_slots = seen[1:]
    assert len(decode_slots) == 9
    assert [padding for _, padding in decode_slots] == [32] * 9, "the first slot after the blocks"
    assert all(own < 32 for own, _ in decode_slots)


@pytest.mark.parametrize("num_common", [0, 100])
def test_chunks_whose_tokens_are_rows_give_the_same_tokens(num_common: int, on_the_cpu: None) -> None:
    model = tiny_model()
    prompts = [[*range(num_common), *range(200 - 3 * index, 205)] for index in range(7)]
    expected = run(make_core(model, max_tokens_per_step=256), *prompts)
    core, spans = make_core(model, max_tokens_per_step=256), []
    packing = core._runner.packing._replace(max_row_chunk=30, costs=SharingCosts(launches=0, copies=1))
    core._batch_maker = BatchMaker(core._runner._block_size, packing)
    forward = core._runner.forward

    def recorded_forward(batch: Batch, in_flight: mx.array | None) -> mx.array:
        spans.append((len(batch.prompts), 0 if batch.rows is None else len(batch.rows.levels)))
        return forward(batch, in_flight)

    core._runner.forward = recorded_forward  # type: ignore[method-assign]
    assert run(core, *prompts) == expected
    assert max(num_prompts for num_prompts, _ in spans) == (num_common > 0)
    assert max(num_levels for _, num_levels in spans) > 0


def test_the_pacer_is_told_each_step_s_own_time(on_the_cpu: None) -> None:
    """On a CPU a dispatch lasts as long as its forward, and the step before is over when the dispatch begins."""
    core, observed = make_core(tiny_model()), list[tuple[int, float]]()
    forward, observe = core._runner.forward, core.scheduler.pacer.observe

    def slow_forward(batch: Batch, in_flight: mx.array | None) -> mx.array:
        logits = forward(batch, in_flight)
        time.sleep(0.1 if batch.num_prompt_tokens else 0.0)
        return logits

    def recorded_observe(num_prompt_tokens: int, seconds: float) -> None:
        observed.append((num_prompt_tokens, seconds))
        observe(num_prompt_tokens, seconds)

    core._runner.forward = slow_forward  # type: ignore[method-assign]
    core.scheduler.pacer.observe = recorded_observe  # type: ignore[method-assign]
    core.add(Request(0, [1, 2, 3], SamplingParams(max_tokens=30), 0, lambda delta: None))
    for _ in range(5):
        core.step()
    core.add(Request(1, [5] * 100, SamplingParams(max_tokens=4), 0, lambda delta: None))
    while core.has_work:
        core.step()
    with_prompts = [seconds for count, seconds in observed if count]
    assert len(with_prompts) >= 3 and min(with_prompts) >= 0.1
    assert np.median([seconds for count, seconds in observed if not count]) < 0.1


def test_pools_are_made_anew_while_something_that_is_in_flight_breaks() -> None:
    core = make_core(tiny_model())
    for _ in range(20):
        broken = mx.linalg.inv(mx.zeros((300, 300)), stream=mx.cpu)
        with suppress(RuntimeError):
            mx.async_eval(broken)
        core._runner.reset()
    assert run(core, [1, 2, 3]) == run(make_core(tiny_model()), [1, 2, 3])


def test_what_the_gpu_kernels_do_not_serve_is_refused_when_the_engine_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_agent_kernels.attention.backend", lambda: "cuda")
    with pytest.raises(UnsupportedModelError, match="head size 24: the GPU kernels serve 64, 80, 96"):
        make_core(tiny_model(head_dim=24))


@pytest.mark.parametrize("profile", [CPU, CUDA, METAL], ids=lambda profile: profile.backend)
def test_a_model_is_whole_again_when_its_last_core_is_closed(
    profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_agent_llm.core.forward.runner.profile_here", lambda: replace(profile, warm_rows=(1,)))
    model = tiny_model()
    before, said = looks(model), mlx_lm_says(model)
    cores = [make_core(model, max_tokens_per_step=64) for _ in range(2)]
    answers = [run(core, [1, 2, 3], [*range(40)]) for core in cores]
    cores[0].close()
    assert looks(model) != before
    assert [run(cores[1], [1, 2, 3], [*range(40)]), mlx_lm_says(model)] == [answers[0], said]
    cores[1].close()
    assert looks(model) == before
    assert mlx_lm_says(model) == said
    assert run(make_core(model), [1, 2, 3], [*range(40)]) == answers[0]


@pytest.mark.parametrize("profile", [CPU, CUDA, METAL], ids=lambda profile: profile.backend)
def test_a_core_that_is_closed_holds_no_weights(profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_agent_llm.core.forward.runner.profile_here", lambda: replace(profile, warm_rows=(1,)))
    gc.collect()
    gc.disable()
    try:
        num_bytes = mx.get_active_memory()
        model = tiny_model(hidden_size=256)
        core = make_core(model)
        run(core, [1, 2, 3])
        core.close()
        assert mx.get_active_memory() > num_bytes + 500_000
        del model
        assert mx.get_active_memory() < num_bytes + 50_000
    finally:
        gc.enable()


def mlx_lm_says(model: nn.Module) -> list[int]:
    return [int(token) for token, _ in generate_step(mx.array([1, 2, 3]), model, max_tokens=10)]


@pytest.mark.parametrize("place", ["_make_layers", "forward"])
def test_a_core_that_cannot_be_made_leaves_the_model_whole(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before = looks(model)

    def no_room(*arguments: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ModelRunner, place, no_room)
    with pytest.raises(MemoryError):
        make_core(model)
    assert looks(model) == before
