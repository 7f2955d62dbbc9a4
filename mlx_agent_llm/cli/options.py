"""Options that several commands take, and where what they ask for goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

STDOUT = Path("-")


def check_folder(path: Path | None) -> Path | None:
    """Say it before an hour of work, not after, when the file could not be written."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder")
    return path


def _check_picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix != ".png":
        raise typer.BadParameter(f"{path} must end in .png")
    return check_folder(path)


JSONFile = Annotated[
    Path | None,
    typer.Option("--json", callback=check_folder, help='Write the results to this file, too; "-" is standard output.'),
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", callback=_check_picture, help="Draw the results into this .png file, too.")
]
ModelName = Annotated[str, typer.Option(help='"demo", a hub id, a local directory or a .gguf file.')]


def console_beside(json_file: Path | None) -> Console:
    """Where tables and notes go: the standard error, if the standard output is for JSON."""
    return Console(stderr=json_file == STDOUT)


def write_json(path: Path | None, value: Any) -> None:
    """Write what --json asks for; nothing without it."""
    text = json.dumps(value, indent=2)
    if path == STDOUT:
        sys.stdout.write(text + "\n")
    elif path is not None:
        write_file(path, text)


def write_file(path: Path, text: str) -> None:
    """Write a text; an OSError names the file, which Python's own does not where the disk is full."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
