"""Tools of a real MCP server through LlamaIndex's McpToolSpec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

from tests.support.corpora import server_command
from tests.support.engines import MakeLLM

CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("get-sum", {"a": 19, "b": 23}, "is 42"),
    ("get-tiny-image", {}, "image/png"),
    ("get-resource-links", {"count": 2}, "demo://resource/dynamic/text/2"),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "arguments", "expected"), CALLS)
async def test_an_agent_reads_what_a_tool_of_a_server_gives(
    make_llm: MakeLLM, name: str, arguments: dict[str, Any], expected: str
) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        is_answered = "<tool_response>" in prompt.split("Go on.")[1]
        call = json.dumps({"name": name, "arguments": arguments})
        return "Done." if is_answered else f"<tool_call>{call}</tool_call>"

    command, *rest = server_command("@modelcontextprotocol/server-everything")
    tools = await McpToolSpec(BasicMCPClient(command, args=[*rest, "stdio"])).to_tool_list_async()
    agent = FunctionAgent(tools=tools, llm=make_llm(reply, max_tokens=200))
    assert str(await agent.run("Go on.")) == "Done."
    assert expected in prompts[-1]
