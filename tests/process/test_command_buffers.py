import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is set on Linux only")

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
