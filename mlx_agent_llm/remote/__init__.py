"""An engine of another process, through its server, with the surface of Engine that the frameworks' classes use."""

try:
    import httpx  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("base_url needs httpx: pip install 'mlx-agent-llm[client]'") from error

from mlx_agent_llm.remote.engine import RemoteEngine
from mlx_agent_llm.remote.engines import RemoteEngines
from mlx_agent_llm.remote.server import RemoteServer

__all__ = ["RemoteEngine", "RemoteEngines", "RemoteServer"]
