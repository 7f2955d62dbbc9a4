"""Engines behind a server instead of in this process."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Union

from pydantic import SecretStr

from mlx_agent_llm import Engine, EngineConfig

if TYPE_CHECKING:
    from mlx_agent_llm.remote import RemoteEngine, RemoteEngines

AnyEngine = Union[Engine, "RemoteEngine"]
"""What answers, wherever it runs."""


def remote_engines(
    base_url: str | None, api_key: SecretStr | None, engine: Engine | None, engine_config: EngineConfig | None
) -> RemoteEngines | None:
    """Those of the server that a chat model's parameters name, if they do; a ValueError where they contradict it."""
    if base_url is None:
        if api_key is not None:
            warnings.warn("api_key has no effect without base_url: the model runs in this process", stacklevel=6)
        return None
    if engine is not None or engine_config is not None:
        raise ValueError(f"base_url={base_url!r} has an engine of its own: it cannot be combined with another one")
    from mlx_agent_llm.remote import RemoteEngines, RemoteServer

    return RemoteEngines(RemoteServer(base_url, None if api_key is None else api_key.get_secret_value()))
