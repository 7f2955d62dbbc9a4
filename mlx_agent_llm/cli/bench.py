"""mlx-agent bench: a workload on our engine and on mlx-lm, as a table and as JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import mlx.core as mx
import typer
from rich.console import Console
from rich.table import Table

from mlx_agent_llm.bench import WORKLOADS, Comparison, compare, make_workload
from mlx_agent_llm.cli.options import JSONFile, ModelName
from mlx_agent_llm.models import load_model


def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(WORKLOADS)}.")],
    model: ModelName = "demo",
    rows: Annotated[int | None, typer.Option(min=1, help="Requests instead of the workload's own number.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each in turns; the best counts.")] = 1,
    json_file: JSONFile = None,
) -> None:
    """Measure our engine against mlx-lm's BatchGenerator on one workload."""
    if name not in WORKLOADS:
        raise typer.BadParameter(f"{name!r} must be one of {', '.join(WORKLOADS)}", param_hint="NAME")
    loaded = load_model(model)
    comparison = compare(loaded, make_workload(name, loaded.vocab_size, rows), repeats)
    console = Console()
    console.print(_table(comparison))
    console.print(f"{model} on {mx.default_device()}, {platform.platform()}, {date.today().isoformat()}")
    if json_file is not None:
        json_file.write_text(json.dumps(_report(model, comparison), indent=2), encoding="utf-8")


def _table(comparison: Comparison) -> Table:
    workload, ours, peer = comparison.workload, comparison.ours, comparison.mlx_lm
    table = Table(title=f"{workload.name}: {len(workload.prompts)} requests, {workload.num_new} new tokens each")
    for column in ("", "total s", "all started s", "decode tok/s"):
        table.add_column(column, justify="right" if column else "left")
    for label, run in (("mlx_agent_llm", ours), ("mlx-lm", peer)):
        numbers = (run.total_seconds, run.all_started_seconds, run.decode_tokens_per_second)
        table.add_row(label, *(f"{number:.2f}" for number in numbers))
    table.add_row("times as fast", *(f"{ratio:.2f}x" for ratio in comparison.ratios.values()))
    return table


def _report(model: str, comparison: Comparison) -> dict[str, Any]:
    return {
        "workload": comparison.workload.name,
        "requests": len(comparison.workload.prompts),
        "new_tokens": comparison.workload.num_new,
        "model": model,
        "device": str(mx.default_device()),
        "platform": platform.platform(),
        "date": date.today().isoformat(),
        "ours": asdict(comparison.ours),
        "mlx_lm": asdict(comparison.mlx_lm),
        "ratios": comparison.ratios,
    }
