"""MCP servers by the usual `mcpServers` file, over stdio or HTTP. No shell starts anything.

A server gets the variables of its entry and those few that MCP's client passes on (PATH, HOME and their like), not the
environment of this process. The client is async: it has an event loop on a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mlx_agent_llm.chat import Tool
from mlx_agent_llm.cli.chat.tool_box import RunnableTool

try:
    import httpx
    from mcp import ClientSession, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.types import CallToolResult, TextContent
except ModuleNotFoundError as error:
    raise ImportError("--mcp needs MCP's client: pip install 'mlx-agent-llm[mcp]'") from error

T = TypeVar("T")
_SECONDS_TO_START = 60.0
_SECONDS_TO_ANSWER = 300.0


class ServerEntry(BaseModel):
    """An entry of mcpServers: a command, or a URL."""

    model_config = ConfigDict(extra="ignore")  # other clients have fields of their own

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> ServerEntry:
        if (self.command is None) == (self.url is None):
            raise ValueError("it needs a command or a url, and not both")
        return self


def read_servers(path: Path) -> Mapping[str, Any]:
    """The entries of the file by their names, as they stand there; a BadParameter says why there are none."""
    try:
        servers = json.loads(path.read_text(encoding="utf-8"))["mcpServers"]
        return dict(servers)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="--mcp") from None
    except (ValueError, KeyError, TypeError):
        problem = f'{path} must be JSON of the form {{"mcpServers": {{"name": {{"command": ...}}}}}}'
        raise typer.BadParameter(problem, param_hint="--mcp") from None


class MCPServers:
    """Servers that run until this is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mlx-agent-mcp", daemon=True)
        self._thread.start()
        self._stops: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def start(self, entry: Any) -> dict[str, RunnableTool]:
        """Start or reach one server; its tools. Raises whatever keeps it from that."""
        return self._run(self._start(ServerEntry.model_validate(entry)))

    def close(self) -> None:
        """Stop all servers."""
        self._run(self._stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, entry: ServerEntry) -> dict[str, RunnableTool]:
        """The connection is entered and left in one task, as its cancel scopes ask for."""
        started: asyncio.Future[ClientSession] = self._loop.create_future()
        stop = asyncio.Event()
        task = self._loop.create_task(_hold_open(entry, started, stop))
        try:
            session = await asyncio.wait_for(asyncio.shield(started), _SECONDS_TO_START)
        except BaseException:
            task.cancel()
            raise
        self._stops.append((stop, task))
        listed = await session.list_tools()
        return {
            tool.name: RunnableTool(
                Tool(tool.name, tool.description or "", {"properties": {}, **tool.inputSchema}, strict=False),
                partial(self._call, session, tool.name),
            )
            for tool in listed.tools
        }

    def _call(self, session: ClientSession, name: str, **arguments: Any) -> str:
        return _text_of(self._run(session.call_tool(name, arguments)))

    async def _stop_all(self) -> None:
        for stop, task in reversed(self._stops):
            stop.set()
            await asyncio.gather(task, return_exceptions=True)


def why(error: Exception) -> str:
    """What keeps a server from being used, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'entry'}: {one['msg']}" for one in error.errors())
    if isinstance(error, TimeoutError):
        return f"it did not answer within {_SECONDS_TO_START:.0f} s"
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _hold_open(entry: ServerEntry, started: asyncio.Future[ClientSession], stop: asyncio.Event) -> None:
    try:
        async with AsyncExitStack() as stack:
            session = await _connect(entry, stack)
            started.set_result(session)
            await stop.wait()
    except Exception as error:
        if not started.done():
            started.set_exception(error)


async def _connect(entry: ServerEntry, stack: AsyncExitStack) -> ClientSession:
    if entry.command is not None:
        server = StdioServerParameters(command=entry.command, args=entry.args, env=entry.env, cwd=entry.cwd)
        read, write = await stack.enter_async_context(stdio_client(server))
    else:
        assert entry.url is not None
        client = await stack.enter_async_context(httpx.AsyncClient(headers=entry.headers, timeout=_SECONDS_TO_ANSWER))
        read, write, _ = await stack.enter_async_context(streamable_http_client(entry.url, http_client=client))
    session = await stack.enter_async_context(ClientSession(read, write))
    await session.initialize()
    return session


def _text_of(result: CallToolResult) -> str:
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    text = "\n".join(parts)
    return f"error: {text}" if result.isError else text
