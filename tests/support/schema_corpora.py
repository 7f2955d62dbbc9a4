"""Schemas as the world writes them: of tools, configuration files, Kubernetes, MCP servers and pydantic models.

Run as a script it reads and compiles all of them and prints what is refused, and how long it takes.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import pkgutil
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from tests.support.corpora import corpus, server_command

NUM_KUBERNETES = 500


class Named(NamedTuple):
    """A schema, where it is from, and the documents that its references name."""

    corpus: str
    name: str
    schema: dict[str, Any]
    documents: dict[str, Any] = {}


def check_jsonschema() -> Iterator[Named]:
    """The schemas of configuration files that check-jsonschema carries."""
    folder = corpus("check-jsonschema") / "check_jsonschema" / "builtin_schemas" / "vendor"
    for path in sorted(folder.glob("*.json")):
        yield Named("check-jsonschema", path.stem, json.loads(path.read_text()))


def kubernetes() -> Iterator[Named]:
    """NUM_KUBERNETES of the schemas of Kubernetes, the same ones every time."""
    root = corpus("kubernetes-validate") / "kubernetes_validate" / "kubernetes-json-schema"
    paths = [path for path in sorted(root.glob("*-local*/*.json")) if path.stem not in ("_definitions", "all")]
    for path in random.Random(0).sample(paths, NUM_KUBERNETES):
        yield Named(
            "kubernetes", f"{path.parent.name}/{path.stem}", json.loads(path.read_text()), _definitions(path.parent)
        )


@cache
def _definitions(folder: Path) -> dict[str, Any]:
    path = folder / "_definitions.json"
    return {path.name: json.loads(path.read_text())}


PYTHON_SERVERS = {"mcp-server-fetch": [], "mcp-server-git": [], "mcp-server-sqlite": [], "mcp-server-time": []}
NODE_SERVERS = {
    f"@modelcontextprotocol/server-{name}": arguments
    for name, arguments in {
        "everything": [],
        "filesystem": ["/tmp"],
        "memory": [],
        "sequential-thinking": [],
    }.items()
}


def mcp_tools() -> Iterator[Named]:
    """The tools of real MCP servers, which are started over stdio."""
    for name, arguments in (PYTHON_SERVERS | NODE_SERVERS).items():
        for tool, schema in asyncio.run(_list_tools([*server_command(name), *arguments])):
            yield Named("mcp", f"{name}/{tool}", schema)


async def _list_tools(command: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The answer to tools/list, in the protocol's own lines of JSON-RPC."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    assert process.stdin is not None and process.stdout is not None
    client = {"name": "tests", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    try:
        for message in (
            {"id": 1, "method": "initialize", "params": hello},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/list", "params": {}},
        ):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            await process.stdin.drain()
            while "id" in message:
                line = await asyncio.wait_for(process.stdout.readline(), 60)
                answer = json.loads(line) if line.startswith(b"{") else {}
                if answer.get("id") == message["id"] and "method" not in answer:
                    break
        return [(tool["name"], tool["inputSchema"]) for tool in answer["result"]["tools"]]
    finally:
        process.kill()
        await process.wait()


def pydantic_models() -> Iterator[Named]:
    """The pydantic models among the public classes of langchain-core and llama-index-core, as pydantic writes them."""
    for package in ("langchain_core", "llama_index.core"):
        for kind in sorted(_models_in(package), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
            try:
                schema = kind.model_json_schema()
            except (PydanticInvalidForJsonSchema, PydanticUserError, NotImplementedError, AttributeError, TypeError):
                continue  # it holds what is no JSON
            yield Named("pydantic", f"{kind.__module__}.{kind.__qualname__}", schema)


def _models_in(package: str) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        try:
            module = importlib.import_module(info.name)
        except Exception:
            continue
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, BaseModel) and kind.__module__.startswith(package) and not name.startswith("_"):
                found.add(kind)
    return found


def tools() -> Iterator[Named]:
    """Tools like those of the Berkeley Function-Calling Leaderboard."""
    for name, schema in TOOL_SCHEMAS.items():
        yield Named("tools", name, schema)


CORPORA = {
    "tools": tools,
    "pydantic": pydantic_models,
    "mcp": mcp_tools,
    "check-jsonschema": check_jsonschema,
    "kubernetes": kubernetes,
}
