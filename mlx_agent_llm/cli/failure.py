"""What went wrong, in one line on the standard error."""

from __future__ import annotations

from rich.console import Console

from mlx_agent_llm.process import installation

PART_DONE = 3
"""The exit code where only a part could be done."""


def tell(error: Exception) -> None:
    """Print the error; where MLX cannot be loaded that is the reason, whatever could not be imported."""
    problem = installation.problem() if isinstance(error, ImportError) else None
    print_line(problem or f"{type(error).__name__}: {error}")


def print_line(text: str) -> None:
    """Print what went wrong."""
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
