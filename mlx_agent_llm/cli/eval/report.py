"""An evaluation from its cases to its table and JSON."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_agent_llm.bench.machine import describe_machine
from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.engine import Engine
from mlx_agent_llm.evaluate import bfcl
from mlx_agent_llm.evaluate.case import Case
from mlx_agent_llm.evaluate.interval import Proportion
from mlx_agent_llm.evaluate.letters import letter_cases
from mlx_agent_llm.evaluate.run import Outcome, run_cases
from mlx_agent_llm.evaluate.schemas import schema_cases
from mlx_agent_llm.evaluate.summary import Score, numbers, scores


class Settings(NamedTuple):
    """The options as they were given."""

    model: str
    suites: tuple[str, ...]
    num_cases: int
    seed: int
    max_tokens: int
    concurrency: int
    bfcl: Path | None
    json_file: Path | None


def report(settings: Settings) -> None:
    """Run, print and write; what is missing is said before the model is loaded."""
    cases = list(_cases(settings))
    console = console_beside(settings.json_file)
    with Engine.load(settings.model) as engine:
        outcomes = _run(engine, cases, settings, console)
    console.print(_table(list(scores(outcomes)), settings.model))
    console.print(
        "valid: fits its schemas. right: the call is one that the case accepts, or the field is what stands in the "
        "letter. In brackets the 95% interval. The grammar makes replies valid; being right is the model's part.",
        highlight=False,
    )
    header = {"model": settings.model, "seed": settings.seed, "machine": describe_machine()}
    write_json(settings.json_file, header | numbers(outcomes))


def _cases(settings: Settings) -> Iterator[Case]:
    """So many of each category."""
    for category in _categories(settings):
        chosen = min(settings.num_cases, len(category))
        yield from random.Random(settings.seed).sample(category, chosen)


def _categories(settings: Settings) -> Iterator[list[Case]]:
    if "bfcl" in settings.suites:
        folder = settings.bfcl or bfcl.find_data()
        yield from (bfcl.read_cases(folder, category) for category in bfcl.CATEGORIES)
    if "schemas" in settings.suites:
        yield schema_cases()
    if "letters" in settings.suites:
        yield letter_cases()


def _run(engine: Engine, cases: list[Case], settings: Settings, console: Console) -> list[Outcome]:
    with Progress(console=console) as progress:
        task = progress.add_task("replies", total=2 * len(cases))
        work = run_cases(engine, cases, settings.max_tokens, settings.concurrency, lambda: progress.advance(task))
        return asyncio.run(work)


def _table(found: list[Score], model: str) -> Table:
    table = Table(title=f"{model}: with the grammar and without", title_justify="left")
    table.add_column("category", no_wrap=True)
    table.add_column("grammar")
    for name in ("cases", "valid", "right", "errors"):
        table.add_column(name, justify="right")
    for score in found:
        name = "" if score.has_grammar else score.category
        shares = (_shown(score.valid), _shown(score.right))
        errors = str(score.num_errors) if score.num_errors else ""
        table.add_row(name, "on" if score.has_grammar else "off", str(score.valid.total), *shares, errors)
    return table


def _shown(value: Proportion) -> str:
    low, high = value.interval
    return f"{value.share:.0%} ({100 * low:.0f}-{100 * high:.0f})"
