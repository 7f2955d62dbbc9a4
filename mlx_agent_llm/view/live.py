"""LiveView: the view of engines for as long as something runs, on a terminal or in a notebook's cell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live

from mlx_agent_llm.view.panel import engines_view
from mlx_agent_llm.view.snapshot import Snapshot

_NUM_APART = 4  # a rate is over so many refreshes


class LiveView:
    """Shows what `read` gives every `seconds`, from a thread of its own, until it is stopped; a context manager, too.

    The last view stays. On a terminal it moves with what is printed above it, in a notebook it stays where its cell is,
    and where there is neither it is printed once, at the end.
    """

    def __init__(
        self, read: Callable[[], Sequence[Snapshot]], seconds: float = 0.5, console: Console | None = None
    ) -> None:
        self._history = History(read)
        self._seconds = seconds
        console = console or Console()
        self._stopped = threading.Event()
        self._screen: _Notebook | Live = (
            _Notebook() if console.is_jupyter else Live(console=console, refresh_per_second=1 / seconds)
        )
        self._screen.start()
        self._thread = threading.Thread(target=self._refresh_until_stopped, name="mlx-agent-view", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show the last view and end; harmless when called again."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            self._screen.update(self._history.view())
            self._screen.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _refresh_until_stopped(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._screen.update(self._history.view())


class History:
    """Remembers the last looks at some engines, for what is counted by the second."""

    def __init__(self, read: Callable[[], Sequence[Snapshot]]) -> None:
        self._read = read
        self._looks: list[Sequence[Snapshot]] = []

    def view(self) -> RenderableType:
        """Look at the engines; how they are now."""
        self._looks = [*self._looks, self._read()][-_NUM_APART:]
        return engines_view(self._looks[-1], self._looks[0] if len(self._looks) > 1 else ())


class _Notebook:
    """A display of IPython, which is changed in its place; rich's own would need ipywidgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def start(self) -> None:
        from IPython.display import display

        self._handle = display(display_id=True)  # type: ignore[no-untyped-call]

    def update(self, view: RenderableType) -> None:
        self._handle.update(view)

    def stop(self) -> None:
        """Nothing: what was shown stays."""
