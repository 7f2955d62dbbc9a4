"""Server-sent events: a response that ends with its terminator, notices clients that leave, and waits for none."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_agent_llm.errors import MLXAgentError
from mlx_agent_llm.server.api_error import APIError, api_error_of
from mlx_agent_llm.server.settings import ServerSettings

T = TypeVar("T")
COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_log = logging.getLogger(__name__)
_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


def json_bytes(value: Any) -> bytes:
    """A value as JSON that stays on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def frame(data: Any, event: str | None = None) -> bytes:
    """One event; event: its name, where the API has names."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + json_bytes(data) + b"\n\n"


def named_frames(events: Iterable[dict[str, Any]]) -> bytes:
    """Events whose names are their types, one after the other."""
    return b"".join(frame(event, event["type"]) for event in events)


def failed_openai(error: APIError) -> bytes:
    """How a stream of OpenAI's ends after an error."""
    return frame(error.openai_envelope) + DONE


class EventStream(Response):
    """Sends frames as they come.

    failed: the frames that end the stream after an error. quiet: what is sent when no frame has come for a while.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        failed: Callable[[APIError], bytes],
        settings: ServerSettings,
        quiet: bytes = COMMENT,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(headers=_HEADERS | (headers or {}))
        del self.headers["content-length"]
        self._frames = frames
        self._failed = failed
        self._settings = settings
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all frames, unless the client leaves."""
        try:
            await while_connected(receive, self._send_all(send))
        except ClientGoneError:
            _log.info("a client left before its stream had ended")

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for data in self._kept_alive():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except MLXAgentError as error:
            last = self._failed(api_error_of(error))
        except APIError as error:
            last = self._failed(error)
        except Exception:
            _log.exception("a stream failed")
            last = self._failed(APIError(500, "internal error", code="internal_error"))
        else:
            last = b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _kept_alive(self) -> AsyncIterator[bytes]:
        """The frames, with others between them while none comes."""
        while True:
            coming = asyncio.ensure_future(anext(self._frames, None))
            try:
                while not (await asyncio.wait({coming}, timeout=self._settings.keepalive_seconds))[0]:
                    yield self._quiet
            finally:
                coming.cancel()
            if (data := coming.result()) is None:
                return
            yield data


class ClientGoneError(Exception):
    """The client has left before its response was whole."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled, and a ClientGoneError raised, when the client leaves meanwhile."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
