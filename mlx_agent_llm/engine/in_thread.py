"""Starting something on another thread, so that a task that is cancelled meanwhile leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(start: Callable[[], T], undo: Callable[[T], None]) -> T:
    """What `start` gives, off the event loop; when the task is cancelled meanwhile, what it started is undone."""
    started: Future[T] = Future()  # the thread's own, because it may go on for longer than the event loop

    def run() -> T:
        result = start()
        started.set_result(result)
        return result

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        started.add_done_callback(lambda done: undo(done.result()))
        raise
