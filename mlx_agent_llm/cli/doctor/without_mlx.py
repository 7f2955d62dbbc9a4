"""doctor where MLX cannot be loaded: what is installed, and what is missing."""

from __future__ import annotations

import platform
from importlib import metadata

from rich.console import Console

from mlx_agent_llm.process import installation

PACKAGES = ("mlx-agent-llm", "mlx", *installation.BUILDS, "mlx-lm")


def tell(problem: str) -> None:
    """Print the problem, after the versions that doctor shows."""
    console = Console()
    console.print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}", markup=False)
    for package in PACKAGES:
        version = metadata.version(package) if installation.is_installed(package) else "not installed"
        console.print(f"{package} {version}", markup=False)
    console.print(problem, style="red", markup=False, soft_wrap=True)
