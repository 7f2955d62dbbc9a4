"""The commands that start MCP servers over stdio, one whose tools are made of an OpenAPI document among them."""

from __future__ import annotations

from pathlib import Path

from mlx_agent_llm.bench.real_schemas import NODE_SERVERS, PYTHON_SERVERS
from tests.support.corpora import corpus, server_command

SUPPORT = Path(__file__).parent
OPENAPI = "openapi"
SERVERS = {**PYTHON_SERVERS, **NODE_SERVERS, OPENAPI: []}


def command_of(server: str) -> list[str]:
    """The whole command of a server of SERVERS; skips the test when it is not there."""
    if server == OPENAPI:
        python = corpus("fastmcp") / "bin" / "python"
        return [str(python), str(SUPPORT / "openapi_server.py"), str(SUPPORT / "data" / "orders_api.json")]
    return [*server_command(server), *SERVERS[server]]
