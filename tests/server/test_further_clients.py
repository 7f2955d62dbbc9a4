"""Clients that are not among the development packages of every run, some of which need an environment of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from mlx_agent_llm.server.app import DrainingServer
from tests.server.test_clients import reply
from tests.support.servers import listening, url_of

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]  # of the clients' own making
FOREIGN = Path(__file__).parent / "foreign"
NODE = FOREIGN / "node"


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


def said_by(script: str, requirement: str, server: DrainingServer, folder: Path) -> Any:
    """What a script prints in an environment that has the requirement and nothing of ours."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "-q", requirement]
    installed = subprocess.run(install, capture_output=True, text=True, env=environment)
    if installed.returncode != 0:
        pytest.skip(f"pip cannot install {requirement}: {installed.stderr[-300:]}")
    command = [python, str(FOREIGN / script), url_of(server)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(1200)
def test_litellm_speaks_both_apis(server: DrainingServer, tmp_path: Path) -> None:
    answers = {
        "call": {"a": 19, "b": 23},
        "answer": "It is 42.",
        "stream": "Hello.",
        "usage": 7,
        "streamed call": {"a": 19, "b": 23},
        "error": "NotFoundError",
    }
    assert said_by("ask_litellm.py", "litellm==1.110.2", server, tmp_path) == {
        "openai": answers,
        "anthropic": answers,
        "parsed": {"name": "Ada", "age": 36},
        "responses": "Hello.",
        "completions": "Hel",
    }


@pytest.mark.timeout(1200)
def test_llama_indexs_openai_like_chats_calls_tools_and_reads_objects(server: DrainingServer, tmp_path: Path) -> None:
    assert said_by("ask_llama_index.py", "llama-index-llms-openai-like==0.8.1", server, tmp_path) == {
        "chat": "Hello.",
        "stream": "Hello.",
        "complete": "Hello.",
        "call": {"a": 19, "b": 23},
        "required": "add",
        "agent": "It is 42.",
        "object": {"name": "Ada", "age": 36},
        "usage": 7,
    }


async def test_pydantic_ai_calls_tools_streams_and_reads_objects(server: DrainingServer) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with openai.AsyncOpenAI(base_url=f"{url_of(server)}/v1", api_key="none") as client:
        model = OpenAIChatModel("default", provider=OpenAIProvider(openai_client=client))
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
