"""Schemas as the world writes them: of tools, configuration files, Kubernetes and MCP servers.

All but the tools come with packages that `make corpora` unpacks beside the installed ones.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mlx_agent_llm.bench.tool_schemas import TOOL_SCHEMAS
from mlx_agent_llm.request.schema_documents import NO_DOCUMENTS, SchemaDocuments

FOLDER = Path(sys.prefix) / "corpora"
NUM_KUBERNETES = 500
SERVER_TIMEOUT = 60.0  # seconds
# The arguments that a server starts with.
PYTHON_SERVERS: Mapping[str, list[str]] = {"mcp-server-fetch": [], "mcp-server-git": [], "mcp-server-time": []}
NODE_SERVERS: Mapping[str, list[str]] = {
    f"@modelcontextprotocol/server-{name}": arguments
    for name, arguments in {
        "everything": [],
        "filesystem": ["/tmp"],
        "memory": [],
        "sequential-thinking": [],
    }.items()
}


class Named(NamedTuple):
    """A schema, where it is from, and the documents that its references name."""

    corpus: str
    name: str
    schema: dict[str, Any]
    documents: SchemaDocuments = NO_DOCUMENTS


def tools() -> Iterator[Named]:
    """Tools like those of the Berkeley Function-Calling Leaderboard."""
    for name, schema in TOOL_SCHEMAS.items():
        yield Named("tools", name, schema)


def check_jsonschema() -> Iterator[Named]:
    """The schemas of configuration files that check-jsonschema carries; a FileNotFoundError where it is not there."""
    for path in _files("check-jsonschema/check_jsonschema/builtin_schemas/vendor", "*.json"):
        yield Named("check-jsonschema", path.stem, json.loads(path.read_text()))


def kubernetes() -> Iterator[Named]:
    """NUM_KUBERNETES of the schemas of Kubernetes, the same ones every time; FileNotFoundError as above."""
    found = _files("kubernetes-validate/kubernetes_validate/kubernetes-json-schema", "*-local*/*.json")
    paths = [path for path in found if path.stem not in ("_definitions", "all")]
    for path in random.Random(0).sample(paths, NUM_KUBERNETES):
        yield Named(
            "kubernetes", f"{path.parent.name}/{path.stem}", json.loads(path.read_text()), _definitions(path.parent)
        )


def mcp_tools() -> Iterator[Named]:
    """The tools of real MCP servers, which are started over stdio; FileNotFoundError as above."""
    commands = {name: [str(FOLDER / "python-server" / "bin" / name), *rest] for name, rest in PYTHON_SERVERS.items()}
    for name, rest in NODE_SERVERS.items():
        commands[name] = ["node", *map(str, _files(f"node-server/node_modules/{name}/dist", "index.js")), *rest]
    for name, command in commands.items():
        for tool, schema in list_tools(command):
            yield Named("mcp", f"{name}/{tool}", schema)


def bundled(named: Named) -> dict[str, Any]:
    """The schema with all that it refers to in itself: the converters of other libraries take no documents."""
    if not named.documents:
        return named.schema
    [(name, document)] = named.documents.items()
    assert isinstance(document, dict), "it is one of Kubernetes'"
    text = re.sub(rf'"[^"#]*{re.escape(name)}#/', '"#/', json.dumps(named.schema))
    definitions, left = dict[str, Any](), [text]
    while left:
        for one in re.findall(r'"#/\$defs/([^"]+)"', left.pop()):
            if one not in definitions:
                definitions[one] = document["$defs"][one]
                left.append(json.dumps(definitions[one]))
    schema: dict[str, Any] = json.loads(text)
    return schema | {"$defs": definitions}


def list_tools(command: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The names and input schemas of a server's tools: the answer to tools/list, in lines of JSON-RPC."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "mlx-agent", "version": "1"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(SERVER_TIMEOUT, process.kill)
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


def _files(folder: str, pattern: str) -> list[Path]:
    found = sorted((FOLDER / folder).glob(pattern))
    if not found:
        raise FileNotFoundError(FOLDER / folder / pattern)
    return found


@cache
def _definitions(folder: Path) -> SchemaDocuments:
    path = folder / "_definitions.json"
    return SchemaDocuments({path.name: json.loads(path.read_text())})


def _answer_to(number: Any, lines: Iterable[str]) -> dict[str, Any]:
    for line in lines:
        answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if answer.get("id") == number and "method" not in answer:
            return answer
    raise EOFError("the server ended without an answer")
