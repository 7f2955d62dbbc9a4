import os
import subprocess
import sys

import pytest

from mlx_agent_llm.process import command_buffers

NAME = "MLX_MAX_MB_PER_BUFFER"


def after_import(given: str | None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != NAME}
    environment |= {} if given is None else {NAME: given}
    code = f"import mlx_agent_llm, os; print(os.environ['{NAME}'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_no_array_s_size_ends_a_graph_of_operations() -> None:
    assert int(after_import(None)) * 2**20 > 10**12  # elements: more than any pool has


def test_what_the_user_has_set_stays() -> None:
    assert after_import("400") == "400"


@pytest.mark.parametrize(("platform", "is_set"), [("linux", True), ("darwin", True), ("win32", False)])
def test_it_is_set_where_mlx_has_a_gpu(platform: str, is_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    command_buffers.fill()
    assert (NAME in os.environ) == is_set
