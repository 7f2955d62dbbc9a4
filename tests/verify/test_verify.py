"""What doctor --verify finds, on small arrays: right results are close, wrong ones and copied pools are said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from typer.testing import CliRunner

from mlx_agent_llm.cli.app import app
from mlx_agent_llm.verify import forms, kernels, steps
from mlx_agent_llm.verify.comparison import Comparison, compare, distance
from mlx_agent_llm.verify.kernels import compare_kernels
from mlx_agent_llm.verify.report import Report
from mlx_agent_llm.verify.steps import Bandwidth, Launches, Steps, count_launches

STEPS = Steps(0.002, 0.0021, 2**20, 2**30)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "DTYPES", (mx.float32,))
    monkeypatch.setattr(kernels, "_HEAD_SHAPES", ((4, 2, 64),))
    monkeypatch.setattr(kernels, "_ROWS", (3,))
    monkeypatch.setattr(forms, "_forms", lambda: [forms.Form("blocks", "llama", mx.float32)])
    monkeypatch.setattr(steps, "_LARGE_BYTES", dict.fromkeys(steps._LARGE_BYTES, 2**24))
    monkeypatch.setattr(steps, "_READ_BYTES", dict.fromkeys(steps._READ_BYTES, 2**24))
    monkeypatch.setattr(steps, "_NUM_NEW", 20)
    monkeypatch.setattr("mlx_agent_llm.bench.decode._BANDWIDTH_BYTES", {"cpu": 2**20, "gpu": 2**20})


def verify(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", "--verify", *arguments], env={"COLUMNS": "200"})


def test_the_command_shows_a_line_each_and_writes_all_of_it(small: None, tmp_path: Path) -> None:
    file = tmp_path / "verify.json"
    done = verify("--json", str(file))
    written = json.loads(file.read_text())
    assert done.exit_code == (0 if written["is_good"] else 1), done.output
    names = [comparison["name"] for comparison in written["comparisons"]]
    assert all(comparison["is_close"] for comparison in written["comparisons"])
    assert names[-1].startswith("blocks")
    functions = {"paged_attention", "shared_prefix_attention", "chunk_attention", "write_pools", "rotate_and_write"}
    assert {name.split(",")[0] for name in names[:-1]} == functions | {"project"}
    for line in (*names, "a step takes", "a copy moves", "thermal state before", f"{len(names)} comparisons: all are"):
        assert line in done.output
    assert written["steps"]["large_bytes"] > written["steps"]["small_bytes"] > 0
    assert all(rate > 0 for rate in written["bandwidth_bytes_per_second"].values())
    assert written["machine"]["versions"]["mlx"]


def test_a_kernel_that_computes_something_else_is_said_and_ends_with_an_error(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kernels.chunk_attention
    monkeypatch.setattr(kernels, "chunk_attention", lambda *arrays, **options: right(*arrays, **options) * 1.1)
    done = verify()
    assert done.exit_code == 1
    assert "comparisons: 2 of" in done.output and "are WRONG" in done.output


@pytest.mark.parametrize("written", [math.nan, math.inf, 3.0])
def test_what_is_not_finite_or_far_away_is_not_close(written: float) -> None:
    found = compare("it", mx.float32, 0.1, lambda: [mx.array([1.0, written])], [mx.array([1.0, 2.0])])
    assert not found.is_close
    assert found.error > 0.4
    assert distance(mx.array([1.0, 2.0]), mx.array([1.0, 2.0])) == 0


def test_a_writer_that_misses_a_slot_is_not_close(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write = kernels.write_pools
    monkeypatch.setattr(kernels, "write_pools", lambda pools, slots, contents: write(pools, slots + 1, contents))
    wrong = [found.name for found in compare_kernels() if not found.is_close]
    assert wrong == ["write_pools, 4 over 2 heads of 64"]


def test_steps_that_a_large_pool_makes_longer_are_not_alike() -> None:
    report = Report([], STEPS, Bandwidth(4e11, 3e11), Launches(12.0, 30.0, 50), ("nominal", None))
    assert report.is_good
    assert report.lines() == [
        "a step takes 2.00 ms with a pool of 1 MiB and 2.10 ms with 1,024 MiB: alike",
        "a copy moves 400 GB/s, attention reads 300 GB/s (75% of it)",
        "a step of one row has 12.0 operations a layer and 30 more, so that 36 layers commit about 10 times a step "
        "(counted, not observed)",
        "thermal state before: nominal; after: not told by the system",
    ]
    copied = report._replace(steps=STEPS._replace(large_seconds=0.02))
    assert not copied.is_good
    assert "NOT alike (more than 1.5x): pools are copied" in copied.lines()[0]


def test_one_wrong_result_is_enough() -> None:
    comparisons = [Comparison("it", "float32", 0.0, 0.1, 1.0), Comparison("it", "float32", 0.2, 0.1, 1.0)]
    assert not Report(comparisons, STEPS, Bandwidth(1.0, 1.0), None, (None, None)).is_good


def test_operations_are_counted_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.mx, "device_info", lambda: {"architecture": "applegpu_g16s"})
    monkeypatch.delenv("MLX_MAX_OPS_PER_BUFFER", raising=False)
    launches = count_launches()
    assert launches.a_layer > 10 and launches.others > 3
    assert launches.a_buffer == 50
    monkeypatch.setenv("MLX_MAX_OPS_PER_BUFFER", "7")
    assert count_launches().a_buffer == 7


@pytest.mark.long
def test_this_device_computes_what_it_should() -> None:
    done = verify()
    assert "all are as they should be" in done.output, done.output
