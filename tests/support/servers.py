"""Servers on models that say what they are told: as an application in the same task, and as one that listens."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.server.app import Address, DrainingServer, make_app
from mlx_agent_llm.server.gate import Gate
from mlx_agent_llm.server.keys import Keys
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from mlx_agent_llm.testing import ScriptedModel
from tests.support.engines import assert_is_clean
from tests.support.foreign_models import ThinkingTokenizer

CONFIG = EngineConfig(kv_cache_tokens=16384, max_num_seqs=16, device="cpu", check_model=False)
_ANY_PORT = Address(port=0)
ADD = {
    "name": "add",
    "description": "Add two integers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
ADD_TOOL = {"type": "function", "function": ADD}
ADD_CALL = '<tool_call>{"name": "add", "arguments": {"a": 19, "b": 23}}</tool_call>'
ASK = [{"role": "user", "content": "hi"}]


def scripted_engine(replies: Sequence[str] | Callable[[str], str], **config: Any) -> Engine:
    """An engine on a model that says `replies`."""
    model = ScriptedModel(replies)
    return Engine.from_parts(model, model.tokenizer, EngineConfig(**{**_values(CONFIG), **config}))


def thinking_engine(reply: str) -> Engine:
    """An engine whose template has a switch for reasoning, on a model that says `reply`."""
    return Engine.from_parts(ScriptedModel([reply]), ThinkingTokenizer(), CONFIG)


def breaking(reply: str, after: int) -> Callable[[str], str]:
    """Replies of which the model breaks after so many tokens."""
    num_calls = itertools.count()

    def say(prompt: str) -> str:
        if next(num_calls) >= after:
            raise RuntimeError("the model broke")
        return reply

    return say


def _values(config: EngineConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def service_of(engine: Engine, **settings: Any) -> Service:
    """A service whose one model, "scripted", is the engine."""
    return Service(ServedModels({"scripted": "memory"}, lambda _: engine), ServerSettings(**settings))


@contextmanager
def serving(
    replies: Sequence[str] | Callable[[str], str] | Engine, keys: Sequence[str] = (), **settings: Any
) -> Iterator[Gate]:
    """An application on a scripted engine, which has to be clean when it is closed."""
    engine = replies if isinstance(replies, Engine) else scripted_engine(replies)
    try:
        yield make_app(service_of(engine, **settings), Keys(keys))
    finally:
        engine.close()
        assert_is_clean(engine)


def client_of(app: Gate, **headers: str) -> httpx.AsyncClient:
    """A client of an application in the same task, without a network."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000", headers=headers, timeout=60
    )


async def ask(app: Gate, path: str, body: Any, **headers: str) -> httpx.Response:
    """The response to one POST; the body is a JSON value or bytes."""
    async with client_of(app, **{"content-type": "application/json", **headers}) as client:
        return await client.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode())


async def chat(app: Gate, messages: Sequence[Mapping[str, Any]] = ASK, **options: Any) -> httpx.Response:
    """The response to a chat completion."""
    return await ask(app, "/v1/chat/completions", {"model": "default", "messages": messages, **options})


def events_of(response: httpx.Response) -> list[Any]:
    """The data of a stream's events; what is no JSON stays as text."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def merged_chunks(chunks: list[Any], index: int = 0) -> dict[str, Any]:
    """What a client makes of the chunks of one choice."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "finish_reason": None}
    for chunk in chunks:
        for choice in chunk["choices"] if isinstance(chunk, dict) else ():
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for piece in delta.get("tool_calls", ()):
                call = message["calls"].setdefault(piece["index"], {"arguments": ""})
                call |= {key: piece[key] for key in ("id", "type") if key in piece}
                call["name"] = piece["function"].get("name", call.get("name"))
                call["arguments"] += piece["function"].get("arguments", "")
            message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
    return message


@contextmanager
def listening(
    replies: Sequence[str] | Callable[[str], str] | Engine,
    keys: Sequence[str] = (),
    address: Address = _ANY_PORT,
    **settings: Any,
) -> Iterator[DrainingServer]:
    """A server that listens on a port of its own, and has to be clean when it has ended."""
    engine = replies if isinstance(replies, Engine) else scripted_engine(replies)
    with listening_service(service_of(engine, **settings), keys, address) as server:
        yield server
    assert_is_clean(engine)


@contextmanager
def listening_service(
    service: Service, keys: Sequence[str] = (), address: Address = _ANY_PORT
) -> Iterator[DrainingServer]:
    """A server of a service, on a port of its own."""
    server = DrainingServer(service, address, Keys(keys))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive(), "the server did not end"


def url_of(server: DrainingServer) -> str:
    """Where a server listens."""
    return f"http://127.0.0.1:{server.port}"


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that other threads do."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Visitor:
    """A client of an application without a network, who takes what is sent piece by piece and may leave."""

    def __init__(self, app: Gate, path: str, body: Any) -> None:
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "headers": [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")],
        }
        self._body: list[bytes] = [json.dumps(body).encode()]
        self._left = asyncio.Event()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.taken: list[bytes] = []
        self.task = asyncio.create_task(app(self._scope, self._receive, self._send))

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def took(self, text: bytes) -> None:
        """Wait until a text was sent."""
        async with asyncio.timeout(30):
            while text not in b"".join(self.taken):
                await asyncio.sleep(0.005)

    async def _receive(self) -> Any:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_take.wait()
        self.taken.append(message.get("body", b""))


async def until_idle(engine: Engine) -> None:
    """Wait until an engine has no request and no block in use."""
    async with asyncio.timeout(30):
        while engine._worker.limit.num_open or engine.stats().num_used_blocks:
            await asyncio.sleep(0.005)


class Sleeper:
    """A client that sends a request with a large answer and takes none of it until it is asked to.

    The kernel would take megabytes for it: buffers of the server's next connections are made small, as its own.
    """

    def __init__(self, server: DrainingServer, *, is_streamed: bool, tls: ssl.SSLContext | None = None) -> None:
        server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", server.port))
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="127.0.0.1")
        body = {"model": "default", "messages": ASK, "stream": is_streamed, "max_tokens": 120}
        data = json.dumps({**body, "logprobs": True, "top_logprobs": 20}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncontent-length: {len(data)}\r\n"
        self._socket.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + data)

    def __enter__(self) -> Sleeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def rest(self, pause: float = 0) -> bytes:
        """What comes until the answer or the connection has ended; pause: seconds between two reads."""
        self._socket.settimeout(60)
        taken = b""
        while not taken.endswith(b"0\r\n\r\n") and (piece := self._socket.recv(65536)):
            taken += piece
            time.sleep(pause)
        return taken
