"""Tools of a real MCP server through LlamaIndex's McpToolSpec and the client that the documentation shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.tools.mcp import McpToolSpec

from tests.support.corpora import server_command
from tests.support.engines import MakeLLM

CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("get-sum", {"a": 19, "b": 23}, "is 42"),
    ("get-tiny-image", {}, "[image: image/png, "),
    ("get-resource-links", {"count": 2}, "demo://resource/dynamic/text/2"),
]


PAGE = Path(__file__).parents[3] / "docs" / "mcp.md"


def documented_client() -> Any:
    code = next(one for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "BlockClient" in one)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["BlockClient"]


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
    tools = await McpToolSpec(documented_client()(command, args=[*rest, "stdio"])).to_tool_list_async()
    agent = FunctionAgent(tools=tools, llm=make_llm(reply, max_tokens=200))
    assert str(await agent.run("Go on.")) == "Done."
    assert expected in prompts[-1]
