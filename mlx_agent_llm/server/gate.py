"""The gate before every route: who may come in, how many at a time, and what is given back when they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.datastructures import URL, Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_agent_llm.server.api_error import APIError
from mlx_agent_llm.server.keys import Keys
from mlx_agent_llm.server.settings import ServerSettings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass
class Visit:
    """One request while it is served; what it holds is given back when its response has ended, however it ends."""

    owner: str
    held: ExitStack = field(default_factory=ExitStack)


def visit_of(request: Request) -> Visit:
    """The visit that a request belongs to."""
    visit: Visit = request.scope["visit"]
    return visit


class Gate:
    """Wraps an application.

    On loopback without keys only requests to loopback names come in: a page elsewhere whose name was made to lead here
    is kept out. Pages of other origins are kept out in any case. open_paths: what holds nothing that a key protects.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, settings: ServerSettings, *, is_loopback: bool, open_paths: Set[str]
    ) -> None:
        self._app = app
        self._keys = keys
        self._settings = settings
        self._open_paths = open_paths
        self._needs_loopback_name = is_loopback and not keys
        self._num_open: Counter[str] = Counter()
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            visit = self._visit(scope, headers)
        except APIError as error:
            envelope = error.envelope(scope["path"])
            await JSONResponse(envelope, error.status, headers=error.headers)(scope, receive, send)
            return
        with visit.held:
            await self._app({**scope, "visit": visit}, receive, send)

    def _visit(self, scope: Scope, headers: Headers) -> Visit:
        self._check_origin(scope, headers)
        visit = Visit("" if scope["path"] in self._open_paths else self._keys.owner(headers))
        if scope["method"] == "POST":
            if self.is_draining:
                raise APIError(503, "the server is shutting down", code="shutting_down", retry_after=5)
            self._enter(visit)
        return visit

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        host = URL(scope=scope).hostname or ""
        if self._needs_loopback_name and host not in _LOOPBACK:
            raise APIError(403, f"host={host!r} must be a loopback name", code="forbidden_host")
        origin = headers.get("origin")
        if origin is not None and URL(origin).netloc != headers.get("host"):
            raise APIError(403, f"origin={origin!r} is another one: pages of it may not call", code="forbidden_origin")

    def _enter(self, visit: Visit) -> None:
        limit = self._settings.max_open_requests
        if self._num_open[visit.owner] >= limit:
            raise APIError(429, f"{limit} requests of this key are open already", code="too_many_open", retry_after=1)
        self._num_open[visit.owner] += 1
        visit.held.callback(self._leave, visit.owner)

    def _leave(self, owner: str) -> None:
        self._num_open[owner] -= 1
        if not self._num_open[owner]:
            del self._num_open[owner]
