"""CancellingIterator: what Engine.stream and stream_chat return."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mlx_agent_llm.engine.chat_handle import ChatHandle
from mlx_agent_llm.engine.handle import Handle

T = TypeVar("T")


class CancellingIterator(Iterator[T]):
    """Cancels the request when it is closed, dropped or interrupted, also before its first item.

    A generator could not do that.
    """

    def __init__(self, handle: Handle | ChatHandle, items: Iterable[T]) -> None:
        self._handle = handle
        self._items = iter(items)

    def __next__(self) -> T:
        try:
            return next(self._items)
        except KeyboardInterrupt:  # a notebook keeps the frames of its last error, and with them this iterator
            self.close()
            raise

    def close(self) -> None:
        """Cancel the request; nothing comes any more."""
        self._handle.cancel()
        self._items = iter(())

    def __del__(self) -> None:
        self._handle.cancel()
