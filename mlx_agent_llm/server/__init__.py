"""HTTP: OpenAI's and Anthropic's APIs over engines of this process. What goes over the wire is what the engine says."""

from __future__ import annotations

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError("the server needs the extra `server`: pip install 'mlx-agent-llm[server]'") from error
