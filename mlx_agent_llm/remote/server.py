"""RemoteServer: requests to a server, and the engine's errors out of what it answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any

import httpx

from mlx_agent_llm.errors import EngineClosedError, RequestError
from mlx_agent_llm.wire import error_of_json

_TIMEOUT = httpx.Timeout(600, connect=10)  # no byte for so long: a model that is asked for may have to be loaded first


class RemoteServer:
    """Where a server listens, and the key that it asks for.

    Each request has a connection of its own, which belongs to no event loop and is closed with it: that is what tells
    the server to stop. base_url: with or without the /v1 that OpenAI's clients want.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        address = httpx.URL(base_url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"base_url={base_url!r} must be an http or https URL")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that a POST is answered with."""
        with self.open(path, body) as response:
            response.read()
            answer: dict[str, Any] = response.json()
        return answer

    @contextmanager
    def open(self, path: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """The response to a POST, whose body is still to come; an error of the engine's is raised."""
        content = _content(body)
        with self._faults(), httpx.Client(**self._options) as client:
            with client.stream("POST", f"{self.base_url}{path}", content=content) as response:
                if response.status_code != 200:
                    response.read()
                    raise error_of_json(_told(response), response.status_code)
                yield response

    @asynccontextmanager
    async def aopen(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """Like open, for an event loop."""
        content = _content(body)
        with self._faults():
            async with httpx.AsyncClient(**self._options) as client:
                async with client.stream("POST", f"{self.base_url}{path}", content=content) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise error_of_json(_told(response), response.status_code)
                    yield response

    @property
    def _options(self) -> dict[str, Any]:
        return {"headers": self._headers, "timeout": _TIMEOUT, "verify": self._tls, "trust_env": False}

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        """Made once: it takes longer than a request."""
        return ssl.create_default_context() if self.base_url.startswith("https") else False

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Say of a connection that broke what an engine says that was closed."""
        try:
            yield
        except httpx.HTTPError as error:
            raise EngineClosedError(f"{self.base_url}: {type(error).__name__}: {error}") from error


def _content(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"the request cannot be sent: {error}") from error


def _told(response: httpx.Response) -> dict[str, Any]:
    """What the body of an error says, whoever wrote it: a proxy's is no JSON."""
    try:
        error: dict[str, Any] = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error
