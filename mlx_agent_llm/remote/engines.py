"""The models of a server that somebody here has asked for."""

from __future__ import annotations

from mlx_agent_llm.remote.engine import RemoteEngine
from mlx_agent_llm.remote.server import RemoteServer


class RemoteEngines:
    """Asks a server once about each of its models."""

    def __init__(self, server: RemoteServer) -> None:
        self._server = server
        self._engines: dict[str, RemoteEngine] = {}

    def find(self, model: str) -> RemoteEngine | None:
        """The engine of a model that was asked for before."""
        return self._engines.get(model)

    def open(self, model: str) -> RemoteEngine:
        """The engine of a model, which the server loads if need be."""
        engine = self._engines.get(model) or RemoteEngine(self._server, model)
        self._engines[model] = engine
        return engine
