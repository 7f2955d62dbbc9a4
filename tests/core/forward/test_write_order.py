"""Pools that are written in place: who reads and who writes them is ordered by arrays alone, or the host waits.

The graphs are a Mac's, of batches that an engine made. tests/support/launch_order.py says what MLX orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_agent_kernels import Writes, attention, gpu
from mlx_agent_llm import SamplingParams
from mlx_agent_llm.core.batch.batch import Batch, SlotCopies
from mlx_agent_llm.core.batch.batch_maker import BatchMaker
from mlx_agent_llm.core.batch.packing import Packing
from mlx_agent_llm.core.batch.sharing import SharingCosts
from mlx_agent_llm.core.forward import runner as runner_module
from mlx_agent_llm.core.forward.device import METAL
from mlx_agent_llm.core.forward.fast.adaptation import adapt
from mlx_agent_llm.core.forward.fast.fused_blocks import fuse_blocks
from mlx_agent_llm.core.forward.layers import full
from mlx_agent_llm.core.forward.layers.gathered import GatheredLayer
from mlx_agent_llm.core.forward.runner import ModelRunner
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import tiny_model
from tests.support.cores import make_core
from tests.support.launch_order import Launch, launches_of, metal_calls, races
from tests.support.model_types import dimensions
from tests.support.model_types.tiny import tiny

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def fused() -> nn.Module:
    model = tiny_model(head_dim=64)
    adapt(model, fuse_blocks)
    return model


def unfused() -> nn.Module:
    return tiny_model(head_dim=64)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fused": fused,
    "unfused": unfused,
    "experts": lambda: tiny("qwen3_moe"),
    "latents": lambda: tiny("deepseek_v3"),
    "capped scores": lambda: tiny("gemma2"),
    "windows and keys of other layers": lambda: tiny("gemma3n"),
}
ATTENDED_BY_MODULES: dict[str, Callable[[], nn.Module]] = {
    "an index": lambda: tiny("deepseek_v32"),
    "chunks": lambda: tiny("llama4"),
}


@pytest.fixture(autouse=True)
def heads_that_kernels_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimensions, "backend", lambda: "metal")


class Steps:
    """A core whose batches were recorded while it computed them on the CPU."""

    def __init__(self, model: nn.Module, *, is_alone: bool = False) -> None:
        self._is_alone = is_alone
        self.core = make_core(model)
        packing = Packing(self.core._runner.packing.padding_block, max_row_chunk=8, costs=SharingCosts(0.1, 0.1))
        self.core._batch_maker = BatchMaker(self.core._runner._block_size, packing)
        self.batches: list[Batch] = []
        self._record()
        self.runner.profile = METAL

    @property
    def runner(self) -> ModelRunner:
        return self.core._runner

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """A step and the next one, which takes tokens from it: of each kind one."""
        kinds = set()
        for first, second in zip(self.batches, self.batches[1:], strict=False):
            if second.has_in_flight and (kind := (kind_of(first), kind_of(second))) not in kinds:
                kinds.add(kind)
                yield first, second

    def launches(
        self, first: Batch, second: Batch, *, is_linked: bool = True, extra: Sequence[mx.array] = ()
    ) -> list[Launch]:
        """Those of both steps, the second of which takes its tokens from the first or not; and what else is wanted."""

        def build(token: mx.array) -> mx.array:
            logits, _ = self.runner._build(first.tokens.token_ids + token, first)
            tokens = mx.argmax(logits, axis=-1) if is_linked else mx.zeros(len(logits), dtype=mx.int32)
            last_logits, _ = self.runner._build(runner_module._token_ids(second, tokens), second)
            return sum((array.sum() for array in (logits, *extra)), last_logits.sum())

        with metal_calls():
            return launches_of(build)

    def _record(self) -> None:
        forward = self.runner.forward

        def recorded_forward(batch: Batch, in_flight: mx.array | None) -> mx.array:
            self.batches.append(batch)
            return forward(batch, in_flight)

        self.runner.forward = recorded_forward  # type: ignore[method-assign]
        add(self.core, range(100), *([] if self._is_alone else [range(50, 90)]))
        for step in range(9):
            if step == 5 and not self._is_alone:
                add(self.core, [*range(32), *range(9)], [*range(32), 7])  # chunks beside rows, and what they share
            self.core.step()
        del self.runner.forward


def add(core: EngineCore, *prompts: Any) -> None:
    for prompt in prompts:
        core.add(Request(object(), list(prompt), SamplingParams(max_tokens=10), 0, lambda delta: None))


def copies_of_pools(steps: Steps, launches: Sequence[Launch]) -> list[str]:
    pools = [pool for layer in steps.runner._layers.paged for pool in (layer.keys, layer.values) if pool.size]
    least = min(pool.nbytes for pool in pools)
    return [launch.name for launch in launches if launch.num_bytes >= least and "Scatter" in launch.name]


def kind_of(batch: Batch) -> tuple[int, bool, bool]:
    return (0 if batch.rows is None else 1 + len(batch.rows.levels), bool(batch.prompts), bool(batch.num_padding))


@pytest.mark.parametrize("name", MODELS)
def test_no_step_reads_or_writes_a_pool_while_another_launch_writes_there(name: str) -> None:
    steps = Steps(MODELS[name]())
    kinds = set()
    for first, second in steps.pairs():
        launches = steps.launches(first, second)
        assert sum(len(launch.written_inputs) for launch in launches) >= 2 * len(steps.runner._layers.paged)
        assert races(launches) == []
        assert copies_of_pools(steps, launches) == []
        kinds |= {kind_of(first), kind_of(second)}
    assert {rows for rows, _, _ in kinds} >= {0, 1}
    assert {has_prompts for _, has_prompts, _ in kinds} == {False, True}


@pytest.mark.parametrize("name", ATTENDED_BY_MODULES)
def test_a_module_that_attends_itself_reads_what_is_written_and_is_read_before_the_next_write(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one sequence: several of a step write while others are read, each in blocks that are its own."""
    steps = Steps(ATTENDED_BY_MODULES[name](), is_alone=True)
    pairs = list(steps.pairs())
    assert {kind_of(first)[1] for first, _ in pairs} == {False, True}
    for pair in pairs:
        launches = steps.launches(*pair)
        assert sum(len(launch.written_inputs) for launch in launches) >= 2 * len(steps.runner._layers.paged)
        assert races(launches) == []
        assert copies_of_pools(steps, launches) == []
    monkeypatch.setattr(GatheredLayer, "after_writes", lambda self, slots: slots)
    assert all(races(steps.launches(*pair)) for pair in pairs)


@pytest.mark.parametrize("name", ["unfused", "experts", "latents", "capped scores"])
def test_attention_that_does_not_wait_for_what_is_written_races(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, written = Steps(MODELS[name]()), list[mx.array]()

    def at_once(mark: mx.array, array: mx.array) -> mx.array:
        written.append(mark)
        return array

    monkeypatch.setattr(attention, "_after", at_once)
    for pair in steps.pairs():
        written.clear()
        assert races(steps.launches(*pair, extra=written))


def test_a_fused_block_whose_chunk_does_not_wait_for_its_queries_races(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = gpu._gather_heads

    def gather_at_once(*arguments: Any) -> Any:
        queries = mx.zeros(arguments[4].shape, arguments[4].dtype)
        return gather(*arguments[:4], queries, *arguments[5:])

    steps = Steps(fused())
    pairs = [(first, second) for first, second in steps.pairs() if first.prompts]
    assert not any(races(steps.launches(*pair)) for pair in pairs)
    monkeypatch.setattr(gpu, "_gather_heads", gather_at_once)
    assert all(races(steps.launches(*pair)) for pair in pairs)


@pytest.mark.parametrize("name", ["fused", "unfused"])
def test_steps_that_no_token_links_race(name: str) -> None:
    steps = Steps(MODELS[name]())
    first, second = next(steps.pairs())
    assert races(steps.launches(first, second, is_linked=False))


@pytest.mark.parametrize("has_in_flight", [False, True])
def test_a_step_that_takes_no_token_from_the_one_before_waits_for_it(
    has_in_flight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(unfused())
    batch = next(batch for batch in steps.batches if batch.has_in_flight)
    samples = mx.zeros(8, dtype=mx.int32)
    logits = steps.runner.forward(batch, samples)
    waited: list[Any] = []
    monkeypatch.setattr(runner_module.mx, "eval", lambda *arrays: waited.extend(arrays))
    steps.runner.forward(batch._replace(has_in_flight=has_in_flight), samples)
    assert any(array is logits for array in waited) != has_in_flight


def test_copies_wait_for_the_step_before_and_are_done_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(unfused())
    runner, marks = steps.runner, []
    logits = runner.forward(steps.batches[-1], mx.zeros(8, dtype=mx.int32))

    def write_in_place(pools: tuple[mx.array, ...], slots: mx.array, contents: Any) -> Writes:
        marks.append(mx.zeros(1))
        return Writes(pools, marks[-1])

    waited: list[Any] = []
    monkeypatch.setattr(full, "write_pools", write_in_place)
    monkeypatch.setattr(runner_module.mx, "eval", lambda *arrays: waited.extend(arrays))
    runner._copy(steps.batches[-1]._replace(copies=SlotCopies(mx.array([3]), mx.array([5]))))
    before, contents, after = waited
    assert before is logits
    assert len(contents) == len(after) == len(marks) > 0
    assert all(array is mark for array, mark in zip(after, marks, strict=True))
