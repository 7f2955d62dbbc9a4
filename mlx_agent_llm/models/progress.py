"""How far the loading of a model is, as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def loading_bar(name: str, num_bytes: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error for the time of the block, where that is a terminal; call it with bytes that are done."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"loading {name}", total=num_bytes)
        yield lambda done: progress.advance(task, done)
