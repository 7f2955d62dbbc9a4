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


JSONFile = Annotated[
    Path | None, typer.Option("--json", callback=_check_folder, help="Write the results to this file, too.")
]
ModelName = Annotated[str, typer.Option(help='"demo", a hub id, a local directory or a .gguf file.')]
