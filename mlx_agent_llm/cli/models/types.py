"""Which model types of mlx-lm are served, with the layers that they have, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.models.served_types import ServedType, served_types


def show_types(words: Sequence[str], json_file: Path | None) -> None:
    """All of them, or those whose names contain one of the words."""
    table = served_types()
    rows = [row for row in table.types if not words or any(word in row.model_type for word in words)]
    if not rows:
        raise typer.BadParameter(f"no model type of mlx-lm {table.mlx_lm} is called like {' or '.join(words)}")
    num_equal = sum(row.verdict == "equal" for row in rows)
    title = f"{num_equal} of {len(rows)} model types of mlx-lm {table.mlx_lm} are served"
    console_beside(json_file).print(_report(rows, title))
    write_json(json_file, {"mlx_lm": table.mlx_lm, "types": [row._asdict() for row in rows]})


def _report(rows: Sequence[ServedType], title: str) -> Table:
    report = Table("type", "layers", "", title=title, title_justify="left")
    for row in rows:
        verdict = "served" if row.verdict == "equal" else f"{row.verdict}: {row.reason}"
        report.add_row(row.model_type, row.layers, verdict)
    return report
