"""Tools of real MCP servers through langchain-mcp-adapters: calls are valid, and results of all kinds are read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_mcp_adapters.client import MultiServerMCPClient

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine
from mlx_agent_llm.constrain.violation import violation
from tests.support.corpora import server_command
from tests.support.langchain_chats import scripted
from tests.support.mcp_servers import OPENAPI, SERVERS, command_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


async def tools_of(server: str) -> dict[str, BaseTool]:
    command, *rest = command_of(server)
    return await tools_over({"command": command, "args": rest, "transport": "stdio"})


async def tools_over(connection: Any) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in await MultiServerMCPClient({"server": connection}).get_tools()}


@contextmanager
def listening(name: str, *arguments: str) -> Iterator[str]:
    """The address of a server that listens for MCP over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*server_command(name), *arguments]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env={**os.environ, "PORT": str(port)}, stdout=quiet, stderr=quiet) as server:
        try:
            wait_until(lambda: is_open(port), 60)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


EVERYTHING = "@modelcontextprotocol/server-everything"
RESULTS = {
    "get-tiny-image": (
        {},
        r"Here's the image you requested:\n\[image: image/png, [\d,]+ bytes\]\nThe image above is",
    ),
    "get-resource-links": (
        {"count": 2},
        r"in this server:\n\[file: text/plain, demo://resource/dynamic/blob/1\]\n\[file: text/plain, demo://",
    ),
    "get-resource-reference": ({"resourceType": "Text", "resourceId": 1}, r"Resource 1:\nResource 1: This is a plai"),
    "get-sum": ({"a": 19, "b": 23}, "is 42"),
}


@pytest.mark.parametrize("name", RESULTS)
async def test_an_agent_reads_whatever_a_tool_of_a_server_gives(name: str) -> None:
    await check_a_call(name, await tools_of(EVERYTHING))


async def test_an_agent_calls_a_server_over_http() -> None:
    with listening(EVERYTHING, "streamableHttp") as url:
        tools = await tools_over({"url": url, "transport": "streamable_http"})
        await check_a_call("get-sum", tools)
        await check_a_call("get-tiny-image", tools)


async def check_a_call(name: str, tools: dict[str, BaseTool]) -> None:
    arguments, expected = RESULTS[name]
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        is_answered = "<tool_response>" in prompt.split("Go on.")[1]
        call = json.dumps({"name": name, "arguments": arguments})
        return "Done." if is_answered else f"<tool_call>{call}</tool_call>"

    with scripted(reply, max_tokens=200) as chat:
        agent: Any = create_agent(chat, list(tools.values()))
        answer = await agent.ainvoke({"messages": [HumanMessage("Go on.")]})
    assert answer["messages"][-1].text == "Done."
    assert re.search(expected, prompts[-1])


async def test_a_server_takes_whatever_a_model_without_sense_calls(random_engine: Engine) -> None:
    tools = await tools_of("mcp-server-time")
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=300)
    bound = chat.bind_tools(list(tools.values()), tool_choice="any", parallel_tool_calls=False)
    for seed in range(6):
        message = await bound.ainvoke("What time is it?", seed=seed)
        [call] = message.tool_calls
        tool = tools[call["name"]].model_copy(update={"handle_tool_error": True})
        result = await tool.ainvoke({**call, "type": "tool_call"})
        assert isinstance(result, ToolMessage) and "validation error" not in str(result.content).lower()


@pytest.mark.parametrize("server", SERVERS)
async def test_every_tool_of_a_server_binds_and_is_called_validly(random_engine: Engine, server: str) -> None:
    tools = await tools_of(server)
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=400)
    assert tools and chat.bind_tools(list(tools.values()))
    for name, tool in tools.items():
        message = await chat.bind_tools([tool], tool_choice=name, parallel_tool_calls=False).ainvoke("Go on.", seed=1)
        [call] = message.tool_calls
        assert call["name"] == name and not message.invalid_tool_calls
        assert isinstance(tool.args_schema, dict)
        assert violation(tool.args_schema, call["args"]) is None


@pytest.mark.parametrize("server", ["mcp-server-time", OPENAPI])
async def test_the_demo_model_calls_every_tool_and_the_server_takes_the_call(demo_engine: Engine, server: str) -> None:
    tools = await tools_of(server)
    chat = ChatMLXAgent(engine=demo_engine, temperature=0, max_tokens=300)
    for name, tool in tools.items():
        bound = chat.bind_tools([tool], tool_choice=name, parallel_tool_calls=False)
        [call] = (await bound.ainvoke("Customer 7 in Rome wants two of article AB-1234.")).tool_calls
        result = await tool.model_copy(update={"handle_tool_error": True}).ainvoke({**call, "type": "tool_call"})
        assert isinstance(result, ToolMessage) and "validation error" not in str(result.content).lower()
        if server == OPENAPI:
            assert result.status == "success" and "/orders" in str(result.content)
