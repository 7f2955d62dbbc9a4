"""The distributions that `make dist` writes: all files are in them, and the wheel alone serves a user."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.whole.test_fresh_installs import DEMO, clean, make_environment

ROOT = Path(__file__).parents[2]
SOURCES = {"mlx_agent_llm": ROOT, "mlx_agent_kernels": ROOT / "kernels", "langchain_mlx_agent": ROOT / "integrations"}
SOURCES |= {"llama_index": ROOT / "integrations"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:]
    return folder


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_wheel_and_sdist_hold_every_file_of_the_packages(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for package, root in SOURCES.items():
        files = [path for path in (root / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {str(path.relative_to(root)) for path in files} <= in_wheel
        assert {str(path.relative_to(ROOT)) for path in files} <= in_sdist
    assert not [name for name in in_wheel if name.startswith(("tests", "docs"))]
    assert wheel.stat().st_size < 2**20, "a wheel of code alone is small"


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_the_wheel_alone_chats_extracts_and_shows_models(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    make_environment(tmp_path / "env", f"{wheel}[cpu]", DEMO)
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}')
    (tmp_path / "letter.txt").write_text("We are three.")
    asked = run(tmp_path, "chat", "demo", "--temperature", "0", "--max-tokens", "16", stdin="Capital of France?\n")
    assert "Paris" in asked
    run(tmp_path, "extract", "schema.json", "letter.txt", "--output", "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().startswith('{"document": "letter.txt"')
    assert "smollm2" in run(tmp_path, "models", "show", "demo")


def run(folder: Path, *arguments: str, stdin: str = "") -> str:
    command = [str(folder / "env" / "bin" / "mlx-agent"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=folder, env=clean(), timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
