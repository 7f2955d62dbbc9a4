"""A call that is given up when it takes too long, in a thread of its own with room for deep recursion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

# Grammar libraries walk nested rules by recursion: 8 MiB end at 1,800 levels, and with them the process.
_STACK_BYTES = 256 * 2**20
_stack_size_lock = threading.Lock()


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """The result of the function, or its error; a TimeoutError when it takes longer than that.

    Then it goes on in a thread of its own, because nothing can stop it, and what it returns is lost.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    _start_with_large_stack(threading.Thread(target=run, name="mlx-agent-compile", daemon=True))
    return future.result(timeout=seconds)


def _start_with_large_stack(thread: threading.Thread) -> None:
    with _stack_size_lock:  # the size is one for the process
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
