"""Which build of MLX is installed, and why none can be loaded; this module must never import mlx at its top."""

from __future__ import annotations

from importlib import metadata

BUILDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
"""The packages that bring MLX's library on Linux; they overwrite each other's files."""


def problem() -> str | None:
    """Why MLX cannot be loaded, and what to install; None when it can."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        return (
            f"MLX cannot be loaded ({error}): on Linux its library is a package of its own. "
            "pip install 'mlx-agent-llm[cpu]', or 'mlx-agent-llm[cuda]' for an NVIDIA GPU"
        )
    return None


def conflict() -> str | None:
    """What to do where several builds are installed; None where it is one."""
    found = [name for name in BUILDS if is_installed(name)]
    if len(found) < 2:
        return None
    return (
        f"{' and '.join(found)} overwrite each other's files, and the last one counts: "
        f"pip uninstall {' '.join(found)}, then install the one that this machine is for"
    )


def is_installed(package: str) -> bool:
    """Whether the package's metadata is there."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
