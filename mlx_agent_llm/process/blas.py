"""The matrix library under MLX on a Linux x86_64 CPU; this module must never import mlx.

MLX's CPU wheel for Linux ships the reference BLAS, which does a few GFLOP/s in float32. When MKL is in the process with
global symbols before mlx.core is loaded, MLX's calls resolve to it and run tens of times faster. Afterwards it is too
late: the symbols are bound.
"""

from __future__ import annotations

import ctypes
import os
import platform
import site
import sys
import warnings
from pathlib import Path
from typing import NamedTuple


class BLASStatus(NamedTuple):
    """MKL's file when it is installed, and whether it is in this process; installed but not loaded means too late."""

    library: str | None
    is_loaded: bool


def preload() -> str | None:
    """Load MKL ahead of mlx and return its path; None where it does not apply or is absent.

    When mlx was imported before, it is too late: a RuntimeWarning says so.
    """
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) <= 2:
        _compute_on_one_thread()
    library = find_mkl()
    if library is None:
        return None
    if "mlx.core" in sys.modules:
        if not _is_in_process(library):
            message = "mlx was imported before mlx_agent_llm, so it keeps its slow BLAS: import mlx_agent_llm first"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        return None
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None  # a broken MKL must not break the import of the package; status() shows it as not loaded
    return library


def status() -> BLASStatus:
    """What is installed, and in the process as it is now."""
    library = find_mkl()
    return BLASStatus(library, library is not None and _is_in_process(library))


def find_mkl() -> str | None:
    """MKL's runtime library, of the newest major version, where PyPI's `mkl` and conda put it; None without one."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    for prefix in (sys.prefix, site.getuserbase()):
        found = sorted((Path(prefix) / "lib").glob("libmkl_rt.so.*"), key=_major_version)
        if found:
            return str(found[-1])
    return None


def _compute_on_one_thread() -> None:
    """Bound MKL and numpy's OpenBLAS, which read it when they are loaded, unless the environment bounds them.

    The products of a decode step are too small to share: on two idle cores a second thread made a step of 16 rows a
    tenth shorter at 40 tokens and a third longer at 90, and beside a busy core ten times as long. Embeddings took 2 to
    4 times as long by two threads of OpenBLAS beside busy cores.
    """
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _major_version(library: Path) -> int:
    suffix = library.name.rpartition(".")[2]
    return int(suffix) if suffix.isdigit() else -1


def _is_in_process(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True
