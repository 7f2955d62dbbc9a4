"""Where and with what a number was measured: it means nothing without."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

import mlx.core as mx

PACKAGES = ("mlx-agent-llm", "mlx", "mlx-lm")


def describe_machine() -> dict[str, object]:
    """Device, platform, versions and the present time."""
    return {
        "device": f"{mx.default_device()} {mx.device_info().get('device_name', '')}".strip(),
        "cpus": os.cpu_count(),
        "mkl_threads": os.environ.get("MKL_NUM_THREADS"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it runs from its sources
        return "not installed"
