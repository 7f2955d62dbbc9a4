"""What a server streams, for threads and for event loops."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Generic, TypeVar

import httpx

from mlx_agent_llm.errors import EngineClosedError
from mlx_agent_llm.remote.server import RemoteServer
from mlx_agent_llm.wire import error_of_json

T = TypeVar("T")
_DATA = "data: "
_DONE = "data: [DONE]"


class RemoteStream(Iterator[T], Generic[T]):
    """Yields what is streamed for one request, which was accepted when this is made.

    read: makes an item of the data of an event. Any thread may close this, and so end the request.
    """

    def __init__(self, server: RemoteServer, path: str, body: Mapping[str, Any], read: Callable[[str], T]) -> None:
        self._is_closed = False
        self._stack = ExitStack()
        self._response = self._stack.enter_context(server.open(path, body))
        self._items = self._read(read)

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Leave; the server ends what was asked for."""
        self._is_closed = True
        with suppress(OSError):
            _socket(self._response).shutdown(socket.SHUT_RDWR)
        try:
            self._items.close()
        except ValueError:  # another thread reads: it finds that the connection is closed
            return
        self._stack.close()

    def __del__(self) -> None:
        if hasattr(self, "_items"):
            self.close()

    def _read(self, read: Callable[[str], T]) -> Generator[T, None, None]:
        try:
            with self._stack:
                for line in self._response.iter_lines():
                    if line == _DONE:
                        return
                    if line.startswith(_DATA):
                        yield read(_data(line))
                raise _cut_off()
        except EngineClosedError:
            if not self._is_closed:
                raise


async def astream_of(
    server: RemoteServer, path: str, body: Mapping[str, Any], read: Callable[[str], T]
) -> AsyncGenerator[T, None]:
    """Like RemoteStream, for an event loop; closing this, or cancelling its task, ends the request."""
    async with server.aopen(path, body) as response:
        async for line in response.aiter_lines():
            if line == _DONE:
                return
            if line.startswith(_DATA):
                yield read(_data(line))
        raise _cut_off()


def _data(line: str) -> str:
    """The data of an event; that of an error is raised. Nothing else is an object."""
    data = line.removeprefix(_DATA)
    if data.startswith("{"):
        failed = json.loads(data)
        raise error_of_json(failed["error"], failed["status"])
    return data


def _cut_off() -> EngineClosedError:
    return EngineClosedError("the connection ended before the answer did")


def _socket(response: httpx.Response) -> socket.socket:
    connection: socket.socket = response.extensions["network_stream"].get_extra_info("socket")
    return connection
