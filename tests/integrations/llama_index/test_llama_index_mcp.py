"""Tools of a real MCP server through LlamaIndex's McpToolSpec and the client that the documentation shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

from llama_index.llms.mlx_agent import MLXAgentLLM
from mlx_agent_llm import Engine
from tests.support.corpora import server_command
from tests.support.engines import MakeLLM
from tests.support.mcp_servers import OPENAPI, command_of

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


@pytest.mark.long
@pytest.mark.parametrize("server", ["mcp-server-time", OPENAPI])
async def test_the_demo_model_calls_every_tool_and_the_server_takes_the_call(demo_engine: Engine, server: str) -> None:
    command, *rest = command_of(server)
    tools = await McpToolSpec(BasicMCPClient(command, args=rest)).to_tool_list_async()
    llm = MLXAgentLLM(engine=demo_engine, temperature=0, max_tokens=300)
    assert tools
    for tool in tools:
        answer = await llm.achat_with_tools(
            tools=[tool], user_msg="Customer 7 in Rome wants two of article AB-1234.", tool_required=True
        )
        [call] = llm.get_tool_calls_from_response(answer)
        result = await tool.acall(**call.tool_kwargs)
        assert "validation error" not in str(result).lower()
        if server == OPENAPI:
            assert "/orders" in str(result)
