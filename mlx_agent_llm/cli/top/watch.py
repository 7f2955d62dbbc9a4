"""Looking at engines: over their sockets or a server's metrics, once or until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import typer
from rich.live import Live

from mlx_agent_llm.cli.options import console_beside, write_json
from mlx_agent_llm.engine.stats_socket import read_folder
from mlx_agent_llm.view.live import History
from mlx_agent_llm.view.snapshot import Snapshot

Read = Callable[[], list[Snapshot]]


def watch(where: str, seconds: float, json_file: Path | None) -> None:
    """Show what is there; a place that cannot be read is an error at once."""
    read = _reader(where)
    history = History(read)
    history.view()
    console = console_beside(json_file)
    if console.is_terminal and json_file is None:
        with Live(console=console) as live:
            while True:
                live.update(history.view())
                time.sleep(seconds)
    time.sleep(seconds)  # a rate needs two looks
    console.print(history.view())
    write_json(json_file, [asdict(one) for one in read()])


def _reader(where: str) -> Read:
    if where.startswith(("http://", "https://")):
        from mlx_agent_llm.cli.top.scrape import scrape  # an extra

        return partial(scrape, where)
    if not Path(where).is_dir():
        problem = f"{where!r} must be a folder of engines' sockets, or an http(s) URL"
        raise typer.BadParameter(problem, param_hint="WHERE")
    return partial(read_folder, Path(where))
