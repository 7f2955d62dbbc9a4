"""Clients that are not among the development packages of every run: those of Node, and pydantic-ai."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from mlx_agent_llm.server.app import DrainingServer
from tests.server.test_clients import reply
from tests.support.servers import listening, url_of

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]  # of the clients' own making
NODE = Path(__file__).parent / "node"


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server() -> Iterator[DrainingServer]:
    with listening(reply) as server:
        yield server


def test_openai_and_the_ai_sdk_in_node(server: DrainingServer, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    for name in ("package.json", "clients.mjs"):
        shutil.copy(NODE / name, tmp_path)
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, text=True
    )
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install the clients: {installed.stderr[-300:]}")
    command = [node, "clients.mjs", url_of(server)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "streamedCall": {"a": 19, "b": 23},
        "usage": True,
        "parsed": {"name": "Ada", "age": 36},
        "ranTools": "It is 42.",
        "responses": "Hello.",
        "error": "NotFoundError",
        "aiText": "It is 42.",
        "aiObject": {"name": "Ada", "age": 36},
        "aiStream": "Hello.",
        "aiUsage": True,
    }


async def test_pydantic_ai_calls_tools_streams_and_reads_objects(server: DrainingServer) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("default", provider=OpenAIProvider(base_url=f"{url_of(server)}/v1", api_key="none"))
    agent = Agent(model)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    assert (await agent.run("What is 19 + 23?")).output == "It is 42."
    async with agent.run_stream("Hi") as stream:
        assert await stream.get_output() == "Hello."
    person = await Agent(model, output_type=NativeOutput(Person)).run("Who?")
    assert person.output == Person(name="Ada", age=36)
