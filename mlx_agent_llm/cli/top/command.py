"""The command: where to look, how often."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile

VARIABLE = "MLX_AGENT_STATS_DIR"


def top(
    where: Annotated[
        str,
        typer.Argument(
            envvar=VARIABLE,
            help=f"A folder that engines were started with as {VARIABLE}, or the http(s) URL of a server's /metrics.",
        ),
    ],
    seconds: Annotated[float, typer.Option(min=0.05, max=3600, help="From one look to the next.")] = 1.0,
    json_file: JSONFile = None,
) -> None:
    """Watch engines of other processes until Ctrl-C; once where the output is no terminal, or with --json."""
    from mlx_agent_llm.cli.top.watch import watch

    watch(where, seconds, json_file)
