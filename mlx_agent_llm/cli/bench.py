"""mlx-agent bench: a workload as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from mlx_agent_llm.bench import WORKLOADS, Options, Result
from mlx_agent_llm.bench.machine import describe_machine
from mlx_agent_llm.bench.random_model import RANDOM_MODELS, random_model
from mlx_agent_llm.bench.workload import Load
from mlx_agent_llm.cli.options import JSONFile, PlotFile
from mlx_agent_llm.config import DType
from mlx_agent_llm.models import LoadedModel, load_model


def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(WORKLOADS)}.")],
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
        typer.Option(min=1, help="mixed: its long prompt's length; decode: one context instead of its table."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="What divergence casts the weights to; may be repeated.", show_default="float32"),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="decode: 4, 8 or 16; the weights are quantized first.", show_default="16")
    ] = None,
    json_file: JSONFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Measure one workload: our engine beside mlx-lm where that does the like, otherwise ours alone."""
    if name not in WORKLOADS:
        raise typer.BadParameter(f"{name!r} must be one of {', '.join(WORKLOADS)}", param_hint="NAME")
    if plot_file is not None:
        from mlx_agent_llm.bench.plot import write_plot  # an extra: what is missing is said before an hour of work
    load = None if model is None else partial(_load, model)
    result = WORKLOADS[name].run(_options(load, rows, repeats, prompt_tokens, dtype, bits))
    machine = describe_machine()
    caption = f"{machine['device']}, {machine['platform']}, {machine['date']}"
    console = Console()
    console.print(_table(result))
    for note in (*result.notes, caption):
        console.print(note, markup=False, highlight=False)
    if json_file is not None:
        default = "random" if name == "decode" else "demo"
        served = model or (default if "model" in WORKLOADS[name].takes else None)
        header = {"workload": name, "model": served, "command": _command(), "machine": machine}
        json_file.write_text(json.dumps(header | dict(result.numbers), indent=2), encoding="utf-8")
    if plot_file is not None:
        write_plot(plot_file, result, caption)


def _load(name: str, dtype: DType) -> LoadedModel:
    return random_model(dtype, name) if name in RANDOM_MODELS else load_model(name, dtype=dtype)


def _options(
    load: Load | None,
    rows: int | None,
    repeats: int | None,
    prompt_tokens: int | None,
    dtype: list[str] | None,
    bits: int | None,
) -> Options:
    try:
        return Options(load, rows, repeats, prompt_tokens, _dtypes(dtype), bits)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _dtypes(names: list[str] | None) -> tuple[DType, ...] | None:
    for name in names or ():
        if name not in get_args(DType):
            raise typer.BadParameter(f"{name!r} must be one of {', '.join(get_args(DType))}", param_hint="--dtype")
    return cast(tuple[DType, ...], tuple(names)) if names else None


def _command() -> str:
    return shlex.join(["mlx-agent", *sys.argv[1:]])


def _table(result: Result) -> Table:
    table = Table(title=result.title)
    for index, column in enumerate(result.columns):
        table.add_column(column, justify="right" if index else "left")
    for row in result.rows:
        table.add_row(*row)
    return table
