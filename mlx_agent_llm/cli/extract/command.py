"""The command: which documents, to which schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile, ModelName

INSTRUCTION = "Extract what is asked for from this document."


def extract(
    schema: Annotated[str, typer.Argument(help="A JSON Schema in a .json file, or module:Model.")],
    files: Annotated[list[Path], typer.Argument(help="Text files, or folders with .txt and .md files.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON lines; what it holds already is not done again.")
    ] = Path("extracted.jsonl"),
    model: ModelName = "demo",
    instruction: Annotated[str, typer.Option(help="What the model is told before each document.")] = INSTRUCTION,
    strict: Annotated[
        bool, typer.Option(help="Refuse a schema that no grammar enforces wholly; otherwise check values afterwards.")
    ] = True,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most new tokens of a document's JSON.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling.")] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Documents at the same time.")] = 32,
    json_file: JSONFile = None,
) -> None:
    """Read documents into JSON of one schema, many at a time; exit code 3 if some could not be read."""
    from mlx_agent_llm.cli.extract.run import Settings, run

    run(Settings(schema, files, output, model, instruction, strict, max_tokens, temperature, concurrency, json_file))
