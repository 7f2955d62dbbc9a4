"""Schemas as the world writes them: of tools, configuration files, Kubernetes, MCP servers and pydantic models."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import random
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.constrain.backends import CompiledConstraint, GrammarCompiler
from mlx_agent_llm.constrain.schema import schema_grammar
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from tests.support.corpora import corpus, server_command

NUM_KUBERNETES = 500


class Named(NamedTuple):
    """A schema, where it is from, and the documents that its references name."""

    corpus: str
    name: str
    schema: dict[str, Any]
    documents: Mapping[str, Any] = MappingProxyType({})


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


PYTHON_SERVERS: dict[str, list[str]] = {
    "mcp-server-fetch": [],
    "mcp-server-git": [],
    "mcp-server-time": [],
}
NODE_SERVERS: dict[str, list[str]] = {
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
        for tool, schema in list_tools([*server_command(name), *arguments]):
            yield Named("mcp", f"{name}/{tool}", schema)


def list_tools(command: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The names and input schemas of a server's tools: the answer to tools/list, in lines of JSON-RPC."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            for message in (
                {"id": 1, "method": "initialize", "params": hello},
                {"method": "notifications/initialized"},
                {"id": 2, "method": "tools/list", "params": {}},
            ):
                process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
                process.stdin.flush()
                answer = _answer_to(message["id"], process.stdout) if "id" in message else {}
        finally:
            watchdog.cancel()
            process.kill()
    return [(tool["name"], tool["inputSchema"]) for tool in answer["result"]["tools"]]


def _answer_to(number: Any, lines: Iterable[str]) -> dict[str, Any]:
    for line in lines:
        answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if answer.get("id") == number and "method" not in answer:
            return answer
    raise EOFError("the server ended without an answer")


def pydantic_models() -> Iterator[Named]:
    """The pydantic models among the public classes of langchain-core and llama-index-core, as pydantic writes them."""
    for package in ("langchain_core", "llama_index.core"):
        for kind in sorted(_models_in(package), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
            try:
                with warnings.catch_warnings(action="ignore"):  # defaults that are no JSON
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
# The share of each corpus that is compiled, at least.
LEAST_COMPILED = {"tools": 1, "pydantic": 0.99, "mcp": 1, "check-jsonschema": 0.76, "kubernetes": 1}


@cache
def _compiler() -> GrammarCompiler:
    """Of a vocabulary of bytes: whether a library reads a grammar does not depend on the tokens."""
    tokens = [*(bytes([byte]) for byte in range(256)), b""]
    return GrammarCompiler(tokens, len(tokens), {256}, {256: "<end>"})


def compile_schema(named: Named) -> CompiledConstraint:
    """What a schema with its documents is compiled to; raises for what is refused on the way."""
    return _compiler().compile(grammar_of(named))


def grammar_of(named: Named) -> ContextFreeGrammar:
    """The grammar of a schema with its documents; raises for what is refused."""
    return schema_grammar(named.schema, documents=named.documents).grammar
