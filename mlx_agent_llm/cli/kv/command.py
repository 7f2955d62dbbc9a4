"""The commands about the folder where the KV of prompts outlives the process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_agent_llm.cli.commands import help_without_command
from mlx_agent_llm.cli.options import JSONFile

kv = typer.Typer(
    callback=help_without_command,
    invoke_without_command=True,
    help="The folder where the KV of prompts outlives the process (kv_tier).",
)

Folder = Annotated[Path | None, typer.Argument(help='The folder that kv_tier names; by default that of "auto".')]
MaxBytes = Annotated[int, typer.Option(min=0, help="What may be left, in bytes.")]


@kv.command("list")
def list_models(folder: Folder = None, json_file: JSONFile = None) -> None:
    """Show of which models there is KV, and how much; which prompts it is of nobody can tell."""
    from mlx_agent_llm.cli.kv.folder import show_usage

    show_usage(folder, json_file)


@kv.command()
def prune(max_bytes: MaxBytes, folder: Folder = None, json_file: JSONFile = None) -> None:
    """Delete what was not used for longest, until no more is left than --max-bytes."""
    from mlx_agent_llm.cli.kv.folder import prune_folder

    prune_folder(folder, max_bytes, json_file)


@kv.command()
def verify(folder: Folder = None, json_file: JSONFile = None) -> None:
    """Read everything and compare it with its checksums; exit code 1 where anything is not what was written."""
    from mlx_agent_llm.cli.kv.folder import verify_folder

    verify_folder(folder, json_file)
