"""The command: of which model, with or without comparisons."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile


def doctor(
    model: Annotated[
        str | None, typer.Argument(help="Show how this model calls tools, too.", show_default="none")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every kernel and form with its reference here, and time them.")
    ] = False,
    json_file: JSONFile = None,
) -> None:
    """Show device, memory, BLAS, speed and versions, and give advice; exit code 1 if what is computed is wrong."""
    from mlx_agent_llm.process import installation

    if (problem := installation.problem()) is not None:
        from mlx_agent_llm.cli.doctor.without_mlx import tell

        tell(problem)
        raise typer.Exit(1)
    from mlx_agent_llm.cli.doctor.report import examine

    if not examine(model, json_file, with_comparisons=verify):
        raise typer.Exit(1)
