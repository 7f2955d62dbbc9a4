"""How far the loading of a model is, as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def loading_bar(name: str, num_bytes: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error for the time of the block, where that is a terminal; call it with bytes that are done."""
    is_terminal_only = None  # what tqdm calls it
    with tqdm(
        desc=f"loading {name}", total=num_bytes, unit="B", unit_scale=True, leave=False, disable=is_terminal_only
    ) as bar:
        yield bar.update
