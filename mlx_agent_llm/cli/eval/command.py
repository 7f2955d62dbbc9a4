"""The command: which model, which cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile

SUITES = ("bfcl", "schemas", "letters")


def evaluate(
    model: Annotated[str, typer.Argument(help='"demo", a hub id, a local directory or a .gguf file.')] = "demo",
    suite: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(SUITES)}; may be repeated.", show_default="all of them"),
    ] = None,
    cases: Annotated[
        int, typer.Option(min=1, help="Of each category, drawn by --seed; more than there are: all.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other cases.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most new tokens of a reply.")] = 256,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Cases at the same time.")] = 32,
    bfcl: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="The folder of BFCL's cases.",
            show_default="that of the package bfcl-eval",
        ),
    ] = None,
    json_file: JSONFile = None,
) -> None:
    """Ask a model for calls and JSON with the grammar and without it: how much is valid, and how much is right."""
    for name in suite or ():
        if name not in SUITES:
            raise typer.BadParameter(f"{name!r} must be one of {', '.join(SUITES)}", param_hint="--suite")
    from mlx_agent_llm.cli.eval.report import Settings, report

    report(Settings(model, tuple(suite or SUITES), cases, seed, max_tokens, concurrency, bfcl, json_file))
