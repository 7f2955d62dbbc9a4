"""The application of all routes, and the server that runs it."""

from mlx_agent_llm.server.app.app import make_app
from mlx_agent_llm.server.app.serve import Address, DrainingServer

__all__ = ["Address", "DrainingServer", "make_app"]
