"""The mlx-agent command."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from mlx_agent_llm.cli import bench, demo, doctor, models
from mlx_agent_llm.errors import MLXAgentError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Many agents on one in-process engine.")
app.command()(bench.bench)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(models.models)


def main() -> None:
    """Run the command; what a user can mend is one line and exit code 1, not a traceback."""
    try:
        app()
    except (MLXAgentError, ImportError) as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
