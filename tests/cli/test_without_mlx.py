"""The package where MLX has no library: every use says what to install, and doctor works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlx_agent_llm.process import installation


def run(code: str) -> subprocess.CompletedProcess[str]:
    block = "import sys; sys.modules['mlx.core'] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=100)


def test_doctor_shows_versions_and_what_to_install() -> None:
    done = run("sys.argv[1:] = ['doctor']\nfrom mlx_agent_llm.cli import main; main()")
    assert done.returncode == 1 and "mlx-agent-llm[cpu]" in done.stdout and "mlx-lm 0." in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "sys.argv[1:] = ['demo']\nfrom mlx_agent_llm.cli import main; main()",
        "from mlx_agent_llm import Engine",
        "import mlx_agent_llm; mlx_agent_llm.Engine",
        "import langchain_mlx_agent",
        "import llama_index.llms.mlx_agent",
    ],
)
def test_whatever_needs_mlx_says_what_to_install(code: str) -> None:
    done = run(code)
    assert done.returncode == 1 and "pip install 'mlx-agent-llm[cpu]'" in done.stderr


def test_two_builds_of_mlx_are_told_apart_by_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.conflict() is None
    monkeypatch.setattr(installation, "is_installed", lambda name: name != "mlx-cuda-12")
    told = installation.conflict()
    assert told is not None and told.startswith("mlx-cpu and mlx-cuda-13 overwrite each other's files")
