"""An engine's stats for other processes, where a variable asks for that."""

import os
import socket
from pathlib import Path

import pytest

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.engine.stats_socket import VARIABLE, read_folder
from tests.support.engines import MakeEngine


def test_engines_answer_in_the_folder_until_they_are_closed(
    make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "engines"))
    first, second = make_engine(), make_engine()
    first.generate(["abc"], SamplingParams(max_tokens=5, ignore_eos=True))
    mine, other = read_folder(tmp_path / "engines")
    assert (mine.num_generated_tokens, other.num_generated_tokens) == (5, 0)
    assert mine.num_prompt_tokens_computed == 3 and mine.mean_phase_times["forward"] > 0
    assert {one.engine.partition("-")[0] for one in (mine, other)} == {str(os.getpid())}
    sockets = list((tmp_path / "engines").iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in sockets)
    first.close()
    assert [one.engine for one in read_folder(tmp_path / "engines")] == [other.engine]
    second.close()
    assert list((tmp_path / "engines").iterdir()) == []


def test_without_the_variable_there_is_no_socket(make_engine: MakeEngine, tmp_path: Path) -> None:
    make_engine()
    assert VARIABLE not in os.environ and read_folder(tmp_path) == []


def test_what_a_dead_process_left_is_passed_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "1-0.sock"))
    assert read_folder(tmp_path) == []


def test_a_folder_that_cannot_hold_a_socket_is_an_error_that_names_the_variable(
    make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / ("long" * 40)))
    with pytest.raises(OSError, match=VARIABLE):
        make_engine()
