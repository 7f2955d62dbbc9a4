"""The command: which workload, on what."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_agent_llm.cli.options import JSONFile, PlotFile

ALL = "all"
WORKLOADS = (
    *("single", "batch", "agents", "turns", "mixed", "mask", "extract"),
    *("divergence", "decode", "host", "langchain", "llamaindex", "embed", "serve", "speculate", "restart"),
)


def bench(
    name: Annotated[
        str, typer.Argument(help=f"One of {', '.join(WORKLOADS)}; or {ALL}: what is compared with mlx-lm.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help='"demo", a hub id, a local directory, a .gguf file, "random": Qwen3-0.6B\'s shape, "random-hybrid": '
            'Mamba 2 and attention, or "random-window": Gemma-3-270M\'s shape.',
            show_default="demo; decode: random",
        ),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Requests instead of the workload's own number.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Runs of each in turns; the best counts.", show_default="1")
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="mixed, restart: the long prompt's length; decode: one context instead of its table."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="What divergence casts the weights to; may be repeated.", show_default="float32"),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="decode: 4, 8 or 16; the weights are quantized first.", show_default="16")
    ] = None,
    schemas: Annotated[int | None, typer.Option(min=1, help="mask: schemas of each corpus.", show_default="10")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="all: fewer requests and shorter prompts, minutes on a CPU.")
    ] = False,
    json_file: JSONFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Measure one workload, or all: our engine beside mlx-lm where that does the like, otherwise ours alone."""
    if name not in (*WORKLOADS, ALL):
        raise typer.BadParameter(f"{name!r} must be one of {', '.join(WORKLOADS)} or {ALL}", param_hint="NAME")
    from mlx_agent_llm.cli.bench.report import Given, measure

    given = Given(model, rows, repeats, prompt_tokens, dtype, bits, schemas, quick or None)
    measure(name, given, json_file, plot_file)
