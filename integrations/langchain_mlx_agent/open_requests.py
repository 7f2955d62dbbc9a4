"""Requests that one call started on several threads: what interrupts the call ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar, copy_context
from typing import Protocol, TypeVar

T = TypeVar("T")


class Closable(Protocol):
    """A stream that ends its request when it is closed, from any thread."""

    def close(self) -> None:
        """End it."""


class OpenRequests:
    """The open streams of one call; they are found through the context, which LangChain's threads copy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: list[Closable] = []
        self._is_interrupted = False

    def run(self, work: Callable[[], T]) -> T:
        """Run a call on a thread of its own: an interrupt reaches the caller's, and then nothing waits for the rest."""
        context, result = copy_context(), Future[T]()
        context.run(_current.set, self)
        threading.Thread(target=context.run, args=(_fulfil, result, work), daemon=True).start()
        try:
            return result.result()
        except BaseException:
            self._interrupt()
            raise

    def add(self, stream: Closable) -> None:
        """Take a stream that was opened; CancelledError when the call is over."""
        with self._lock:
            self._streams.append(stream)
            if not self._is_interrupted:
                return
        stream.close()
        raise CancelledError("the call that this request belongs to was interrupted")

    def _interrupt(self) -> None:
        with self._lock:
            self._is_interrupted = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()


def current_requests() -> OpenRequests | None:
    """Those of the call that runs here, if it is one of several inputs."""
    return _current.get()


_current: ContextVar[OpenRequests | None] = ContextVar("open_requests", default=None)


def _fulfil(result: Future[T], work: Callable[[], T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:
        result.set_exception(error)
