"""A connection that no client can hold by taking nothing."""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)


def connection_kind(send_timeout: float) -> type[H11Protocol]:
    """The HTTP/1.1 of uvicorn, which cuts a client off that has not taken what was sent to it after so many seconds."""

    class Connection(H11Protocol):
        _cutting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Hold one piece at most that the socket does not take."""
            super().connection_made(transport)
            transport.set_write_buffer_limits(1)  # a transport of TLS would pause at 0, which is always reached

        def pause_writing(self) -> None:
            """The socket is full."""
            super().pause_writing()
            self._cutting = self.loop.call_later(send_timeout, self._cut_off)

        def resume_writing(self) -> None:
            """Everything is taken."""
            super().resume_writing()
            self._wait_no_more()

        def connection_lost(self, exc: Exception | None) -> None:
            """Nobody is left."""
            super().connection_lost(exc)
            self._wait_no_more()

        def _wait_no_more(self) -> None:
            if self._cutting is not None:
                self._cutting.cancel()

        def _cut_off(self) -> None:
            _log.warning("a client that took nothing for %s s was cut off", send_timeout)
            self.transport.abort()  # to close it would wait for the client

    return Connection
