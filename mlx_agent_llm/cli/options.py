"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _check_folder(path: Path | None) -> Path | None:
    """Say it before an hour of work, not after, when the file could not be written."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder")
    return path


def _check_picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix != ".png":
        raise typer.BadParameter(f"{path} must end in .png")
    return _check_folder(path)


JSONFile = Annotated[
    Path | None, typer.Option("--json", callback=_check_folder, help="Write the results to this file, too.")
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", callback=_check_picture, help="Draw the results into this .png file, too.")
]
ModelName = Annotated[str, typer.Option(help='"demo", a hub id, a local directory or a .gguf file.')]
