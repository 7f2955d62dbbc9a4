"""mlx-agent models: which model types of mlx-lm are served, and why the others are not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mlx_agent_llm.models.served_types import ServedType, served_types

Words = Annotated[list[str] | None, typer.Argument(help="Only types whose names contain one of these.")]


def models(words: Words = None) -> None:
    """Show the model types of mlx-lm that are served, with the layers that they have."""
    table = served_types()
    rows = [row for row in table.types if not words or any(word in row.model_type for word in words)]
    if not rows:
        raise typer.BadParameter(f"no model type of mlx-lm {table.mlx_lm} is called like {' or '.join(words or ())}")
    num_equal = sum(row.verdict == "equal" for row in rows)
    console = Console()
    console.print(_report(rows, f"{num_equal} of {len(rows)} model types of mlx-lm {table.mlx_lm} are served"))


def _report(rows: list[ServedType], title: str) -> Table:
    report = Table("type", "layers", "", title=title, title_justify="left")
    for row in rows:
        verdict = "served" if row.verdict == "equal" else f"{row.verdict}: {row.reason}"
        report.add_row(row.model_type, row.layers, verdict)
    return report
