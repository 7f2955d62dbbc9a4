"""Engines in child processes: refused at once where a fork left MLX without its threads, served where it did not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

POOL = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import mlx_agent_llm
import mlx.core as mx


def load(name):
    mlx_agent_llm.Engine.load(name)


if __name__ == "__main__":
    mx.eval(mx.ones(8192) + 1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        print(pool.submit(load, "demo" if sys.argv[1] == "fork" else "nothing").exception(100))
"""
CLEAN = """
import os
import mlx_agent_llm
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

child = os.fork()
if child == 0:
    for _ in range(2):
        with mlx_agent_llm.Engine.from_parts(tiny_model(), ByteTokenizer()) as engine:
            engine.generate(["x"], mlx_agent_llm.SamplingParams(max_tokens=2))
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def run(tmp_path: Path, script: str, *arguments: str) -> str:
    file = tmp_path / "script.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, file, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_forked_after_mlx_was_used_is_told_to_be_spawned(tmp_path: Path) -> None:
    printed = run(tmp_path, POOL, "fork")
    assert "was forked from one that had used MLX" in printed and "get_context('spawn')" in printed


def test_a_spawned_child_loads_what_it_likes(tmp_path: Path) -> None:
    printed = run(tmp_path, POOL, "spawn")
    assert printed.startswith("model='nothing' does not exist")


@pytest.mark.skipif(mx.is_available(mx.Device(mx.gpu)), reason="neither Metal nor CUDA survives a fork")
def test_a_child_forked_before_mlx_was_used_may_use_it(tmp_path: Path) -> None:
    run(tmp_path, CLEAN)
