"""An MCP server over stdio whose tools FastMCP makes of an OpenAPI document; it runs in FastMCP's own environment.

Whatever is asked of the API is answered with what was sent.
"""

import json
import sys

import httpx
from fastmcp import FastMCP


def answer(request: httpx.Request) -> httpx.Response:
    """What was sent."""
    body = json.loads(request.content) if request.content else None
    return httpx.Response(200, json={"path": request.url.path, "query": dict(request.url.params), "body": body})


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    client = httpx.AsyncClient(base_url="http://api.test", transport=httpx.MockTransport(answer))
    FastMCP.from_openapi(document, client=client, name="orders").run(show_banner=False)
