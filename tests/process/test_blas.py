import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_agent_llm.process import blas

needs_mkl = pytest.mark.skipif(blas.find_mkl() is None, reason="MKL is not installed")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def load_alone(rest: str) -> str:
    """Run blas.py by itself, as the package's own import may already have called it."""
    return (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('blas', {blas.__file__!r})\n"
        "blas = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(blas)\n" + rest
    )


def test_the_module_imports_nothing_of_mlx() -> None:
    assert run_python(load_alone("print([name for name in sys.modules if name.startswith('mlx')])")) == "[]"


@needs_mkl
def test_preload_before_mlx_puts_mkl_into_the_process() -> None:
    assert run_python(load_alone("print(blas.preload() == blas.find_mkl(), blas.status().is_loaded)")) == "True True"


@needs_mkl
def test_preload_after_mlx_does_nothing_and_status_shows_it() -> None:
    code = "import mlx.core\nprint(blas.preload(), blas.status() == (blas.find_mkl(), False))"
    assert run_python(load_alone(code)) == "None True"


def test_without_mkl_there_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("site.getuserbase", lambda: str(tmp_path))
    assert blas.preload() is None
    assert blas.status() == (None, False)


@pytest.mark.skipif(sys.platform != "linux", reason="MKL is preloaded on Linux only")
def test_the_newest_major_version_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for version in ("2", "10", "3"):
        (tmp_path / "lib" / f"libmkl_rt.so.{version}").write_bytes(b"")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert blas.find_mkl() == str(tmp_path / "lib" / "libmkl_rt.so.10")


@pytest.mark.skipif(sys.platform != "linux", reason="MKL is preloaded on Linux only")
def test_a_broken_mkl_does_not_break_the_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmkl_rt.so.3").write_bytes(b"not a library")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delitem(sys.modules, "mlx.core", raising=False)
    assert blas.preload() is None
    assert blas.status().is_loaded is False


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bounded on Linux only")
@pytest.mark.parametrize(("num_cores", "expected"), [(2, "1"), (3, None)])
def test_small_machines_compute_on_one_thread_by_either_library(
    num_cores: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "find_mkl", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(num_cores)))
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    blas.preload()
    assert [environment.get(name) for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")] == [expected, expected]
    environment["OPENBLAS_NUM_THREADS"] = "7"
    blas.preload()
    assert environment["OPENBLAS_NUM_THREADS"] == "7"
