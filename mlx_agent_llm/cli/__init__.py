"""The mlx-agent command."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.doctor import doctor

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.command()(doctor)
