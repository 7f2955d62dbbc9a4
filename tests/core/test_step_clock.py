"""Where the time of a step goes: the clock on its own, and in an engine."""

from __future__ import annotations

import time

import pytest

from mlx_agent_llm import JSONSchema, SamplingParams
from mlx_agent_llm.core.step_clock import PHASES, Phase, StepClock
from tests.support.engines import MakeEngine


def spend(clock: StepClock, phase: Phase) -> None:
    with clock.phase(phase):
        pass


def test_the_phases_of_a_step_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 3.5, 10.0, 100.0, 104.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    clock = StepClock(num_kept=2)
    clock.begin()
    spend(clock, "wait")
    spend(clock, "advance")
    spend(clock, "wait")
    clock.keep(num_sampled=3, num_prompt_tokens=7)
    spend(clock, "deliver")
    clock.begin()
    spend(clock, "wait")
    clock.keep(num_sampled=1, num_prompt_tokens=0)
    first, second = clock.records
    nothing = dict.fromkeys(PHASES, 0.0)
    assert first == (3, 7, nothing | {"wait": 1.5, "advance": 2.0, "deliver": 6.5})
    assert second == (1, 0, nothing | {"wait": 4.0})
    assert {phase: mean for phase, mean in clock.mean_seconds().items() if mean} == {
        "wait": 2.75,
        "advance": 1.0,
        "deliver": 3.25,
    }


def test_the_time_of_a_phase_is_without_that_of_the_phases_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    clock = StepClock(num_kept=1)
    clock.begin()
    with pytest.raises(ValueError, match="a fault"), clock.phase("dispatch"):
        spend(clock, "forward")
        with clock.phase("wait"):
            raise ValueError("a fault")
    clock.keep(0, 0)
    [record] = clock.records
    assert {phase: spent for phase, spent in record.seconds.items() if spent} == {
        "dispatch": 1.0 + 4.0 + 16.0,
        "forward": 2.0,
        "wait": 8.0,
    }


def test_a_clock_forgets_the_oldest_steps_and_those_that_were_not_kept() -> None:
    clock = StepClock(num_kept=2)
    assert set(clock.mean_seconds().values()) == {0.0}
    for num_sampled in range(1, 5):
        clock.begin()
        spend(clock, "wait")
        if num_sampled != 3:
            clock.keep(num_sampled, 0)
    assert [record.num_sampled for record in clock.records] == [2, 4]


def test_the_engine_tells_its_mean_step_by_phase(make_engine: MakeEngine) -> None:
    engine = make_engine()
    assert set(engine.stats().mean_phase_times.values()) == {0.0}
    constrained = SamplingParams(max_tokens=8, constraint=JSONSchema({"type": "string"}))
    engine.generate([[1, 2, 3], [4, 5, 6]], [SamplingParams(max_tokens=8, ignore_eos=True), constrained])
    engine.close()
    stats = engine.stats()
    assert tuple(stats.mean_phase_times) == PHASES
    assert all(seconds > 0 for seconds in stats.mean_phase_times.values())
    within_the_step = sum(seconds for phase, seconds in stats.mean_phase_times.items() if phase != "deliver")
    assert within_the_step >= stats.mean_step_time * (1 - 1e-9)
