"""The live view: on a terminal, in a pipe and in a notebook."""

import io
import re
import sys
import time
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.view.live import LiveView
from mlx_agent_llm.view.snapshot import Snapshot
from tests.support.engines import MakeEngine


def snapshot(**counts: Any) -> Snapshot:
    known: dict[str, Any] = {
        "engine": "", "model": "a-model", "moment": 10.0, "num_running": 3, "num_waiting": 2, "num_blocks": 100,
        "num_used_blocks": 50, "num_shared_blocks": 20, "num_cached_blocks": 25, "prefix_query_tokens": 1000,
        "prefix_hit_tokens": 800, "num_prompt_tokens_computed": 200, "num_generated_tokens": 100, "num_preemptions": 0,
        "mean_batch_size": 2.5, "mean_step_time": 0.02, "mean_phase_times": {"forward": 0.005, "wait": 0.015},
    }  # fmt: skip
    return Snapshot(**known | counts)


def shown(looks: list[list[Snapshot]], *, is_terminal: bool) -> str:
    """What is printed while the looks follow each other."""
    left, out = iter(looks), io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=110, color_system=None)
    view = LiveView(lambda: next(left), 3600, console)
    view._history.view()
    view.stop()
    view.stop()
    return out.getvalue()


def test_the_view_tells_queue_blocks_prefixes_rates_and_phases() -> None:
    later = snapshot(moment=12.0, num_generated_tokens=180, num_prompt_tokens_computed=201)
    printed = shown([[snapshot()], [later]], is_terminal=False)
    assert "a-model" in printed and "3 running, 2 waiting" in printed
    assert "50 used (20 shared), 25 kept, of 100" in printed
    assert re.search("█{20}▒{10}░{10} ", printed)
    assert "80% found: 800 of 1,000 prompt tokens" in printed
    assert "40.0 generated, 0.5 of prompts" in printed
    assert "20.0 ms, 2.5 rows" in printed and "wait 75%, forward 25%" in printed
    assert printed.count("a-model") == 1, "in a pipe it is printed once, at the end"


def test_an_engine_that_came_between_two_looks_has_no_rate_yet() -> None:
    printed = shown([[snapshot(engine="1")], [snapshot(engine="1"), snapshot(engine="2")]], is_terminal=False)
    assert "a-model 1" in printed and "a-model 2" in printed and printed.count("tokens/s") == 1


def test_no_engine_and_no_step_are_said() -> None:
    assert "no engine is open" in shown([[], []], is_terminal=True)
    empty = snapshot(num_blocks=0, num_used_blocks=0, num_cached_blocks=0, prefix_query_tokens=0, mean_phase_times={})
    assert "no step yet" in shown([[empty], [empty]], is_terminal=True)


def test_an_engine_shows_itself_while_a_block_runs(make_engine: MakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine = make_engine()
    with engine.live(seconds=0.05):
        engine.generate(["abc"], SamplingParams(max_tokens=4, ignore_eos=True))
    assert "4 generated, 3 of prompts computed" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"seconds=0 must be at least 0.05"):
        engine.live(seconds=0)


def test_in_a_notebook_one_display_is_changed_in_its_place(
    monkeypatch: pytest.MonkeyPatch, make_engine: MakeEngine
) -> None:
    updates: list[Any] = []

    class Handle:
        def update(self, view: Any) -> None:
            updates.append(view)

    ipython = ModuleType("IPython.display")
    ipython.display = lambda display_id: Handle()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    console = Console(force_jupyter=True)
    view = LiveView(lambda: [snapshot()], 0.01, console)
    deadline = time.monotonic() + 30
    while len(updates) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    view.stop()
    assert "text/html" in updates[-1]._repr_mimebundle_([], [])
