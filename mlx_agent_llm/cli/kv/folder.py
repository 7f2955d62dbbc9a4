"""What the commands about a tier's folder do and print."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.core.kv.tier.inspection import faults_in, prune, usage_of
from mlx_agent_llm.engine.tier import auto_path


def show_usage(folder: Path | None, json_file: Path | None) -> None:
    """What there is of each model, the largest first."""
    path = folder or auto_path()
    usage = usage_of(path)
    num_bytes = sum(model.num_bytes for model in usage)
    table = Table("model", "fingerprint", title=f"{path}: {num_bytes:,} bytes", title_justify="left")
    for column in ("segments", "entries", "bytes"):
        table.add_column(column, justify="right")
    for model in usage:
        table.add_row(
            model.description,
            model.fingerprint,
            *(f"{number:,}" for number in (model.num_segments, model.num_entries, model.num_bytes)),
        )
    console_beside(json_file).print(table)
    write_json(json_file, {"folder": str(path), "bytes": num_bytes, "models": [model._asdict() for model in usage]})


def prune_folder(folder: Path | None, max_bytes: int, json_file: Path | None) -> None:
    """Say how much was deleted."""
    path = folder or auto_path()
    num_deleted = prune(path, max_bytes)
    num_left = sum(model.num_bytes for model in usage_of(path))
    console_beside(json_file).print(f"{path}: {num_deleted:,} bytes deleted, {num_left:,} left", highlight=False)
    write_json(json_file, {"folder": str(path), "deleted_bytes": num_deleted, "bytes": num_left})


def verify_folder(folder: Path | None, json_file: Path | None) -> None:
    """Say what is wrong, a line each."""
    path = folder or auto_path()
    faults = faults_in(path)
    console = console_beside(json_file)
    for fault in faults:
        console.print(fault, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{path}: {len(faults)} faults" if faults else f"{path}: all is as it was written", highlight=False)
    write_json(json_file, {"folder": str(path), "faults": faults})
    if faults:
        raise typer.Exit(1)
