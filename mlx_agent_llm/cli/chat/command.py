"""The command: with which model, tools and schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile


def chat(
    model: Annotated[str, typer.Argument(help='"demo", a hub id, a local directory or a .gguf file.')] = "demo",
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    tools: Annotated[
        Path | None, typer.Option(help="A Python file, whose public functions the model may call.")
    ] = None,
    mcp: Annotated[
        Path | None, typer.Option(help='A JSON file with "mcpServers", whose tools the model may call.')
    ] = None,
    call_first: Annotated[
        bool, typer.Option("--call-first", help="Answer each message with one call first: small models need that.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run calls of tools without asking.")] = False,
    schema: Annotated[
        str | None, typer.Option(help="Answers are JSON of this schema: a .json file or module:Model.")
    ] = None,
    saved: Annotated[Path | None, typer.Option("--continue", help="Go on with a chat that /save wrote.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the sampling.", show_default="the model's own")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most new tokens of an answer.")] = 1024,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed, the same answers.")] = None,
    json_file: JSONFile = None,
) -> None:
    """Chat with a model; /help tells what else can be typed. Reads lines from a pipe, too."""
    from mlx_agent_llm.cli.chat.session import Settings, run_session

    given = Settings(
        model, system, tools, mcp, call_first, yes, schema, saved, temperature, max_tokens, seed, json_file
    )
    run_session(given)
