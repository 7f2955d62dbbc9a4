"""A workload's run as a table, as JSON and as a plot."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast, get_args

import typer
from rich.console import Console
from rich.table import Table as RichTable

from mlx_agent_llm.bench import WORKLOADS, Options, Result, overview
from mlx_agent_llm.bench.machine import describe_machine
from mlx_agent_llm.bench.random_model import RANDOM_MODELS, random_model
from mlx_agent_llm.bench.result import Table
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.config import DType
from mlx_agent_llm.models import LoadedModel, load_model


class Given(NamedTuple):
    """The options as they were given; None where one was not."""

    model: str | None = None
    rows: int | None = None
    repeats: int | None = None
    prompt_tokens: int | None = None
    dtype: list[str] | None = None
    bits: int | None = None
    schemas: int | None = None
    quick: bool | None = None


def measure(name: str, given: Given, json_file: Path | None, plot_file: Path | None) -> None:
    """Run a workload and write what it found."""
    if plot_file is not None:
        from mlx_agent_llm.bench.plot import write_plot  # an extra: what is missing is said before an hour of work
    console = console_beside(json_file)
    result = _run_all(_options(given), console) if name == overview.NAME else WORKLOADS[name].run(_options(given))
    machine = describe_machine()
    caption = f"{machine['device']}, {machine['platform']}, {machine['date']}"
    for one in (result, *result.more):
        console.print(table_of(one))
    for note in (*result.notes, caption):
        console.print(note, markup=False, highlight=False)
    default = "random" if name == "decode" else "demo"
    takes = overview.TAKES if name == overview.NAME else WORKLOADS[name].takes
    served = given.model or (default if "model" in takes else None)
    header = {"workload": name, "model": served, "command": _command(), "machine": machine}
    write_json(json_file, header | dict(result.numbers))
    if plot_file is not None:
        write_plot(plot_file, result, caption)


def _run_all(options: Options, console: Console) -> Result:
    """One after the other, saying which; nobody waits minutes without a sign."""
    results = {}
    for workload, own in overview.parts(options):
        console.print(f"{workload.name} ...", style="dim")
        results[workload.name] = workload.run(own)
    return overview.overview(results)


def table_of(table: Table) -> RichTable:
    """A table as it is printed, its first column to the left and numbers to the right."""
    printed = RichTable(title=table.title)
    for index, column in enumerate(table.columns):
        printed.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        printed.add_row(*row)
    return printed


def _options(given: Given) -> Options:
    load = None if given.model is None else partial(_load, given.model)
    try:
        return Options(
            load,
            given.rows,
            given.repeats,
            given.prompt_tokens,
            _dtypes(given.dtype),
            given.bits,
            given.schemas,
            given.quick,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _load(name: str, dtype: DType) -> LoadedModel:
    return random_model(dtype, name) if name in RANDOM_MODELS else load_model(name, dtype=dtype)


def _dtypes(names: list[str] | None) -> tuple[DType, ...] | None:
    for name in names or ():
        if name not in get_args(DType):
            raise typer.BadParameter(f"{name!r} must be one of {', '.join(get_args(DType))}", param_hint="--dtype")
    return cast(tuple[DType, ...], tuple(names)) if names else None


def _command() -> str:
    return shlex.join(["mlx-agent", *sys.argv[1:]])
