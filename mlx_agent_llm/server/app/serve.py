"""Running a server: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from mlx_agent_llm.server.app.app import make_app
from mlx_agent_llm.server.app.connection import connection_kind
from mlx_agent_llm.server.gate import Gate
from mlx_agent_llm.server.keys import Keys
from mlx_agent_llm.server.service import Service

_CLOSING_SECONDS = 5  # for the ends of streams that the drain has cut


@dataclass(frozen=True)
class Address:
    """Where a server listens; certificate and key: files for TLS. Another host than loopback needs keys."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self, keys: Keys) -> None:
        """Raise a ValueError for an address that anybody could reach."""
        if not self.is_loopback and not keys:
            raise ValueError(f"host={self.host!r} can be reached by others: it needs an api_key_file")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key must be given together")


class DrainingServer(uvicorn.Server):
    """Loads the default model as it starts, and lets requests end after it was told to stop.

    Those that have not ended within the settings' drain_seconds end with an error. load_error: why the model could not
    be loaded, which stops the server.
    """

    def __init__(self, service: Service, address: Address, keys: Keys | None = None) -> None:
        keys = keys or Keys()
        address.check(keys)
        self.service = service
        self.load_error: Exception | None = None
        self.gate: Gate = make_app(service, keys, is_loopback=address.is_loopback)
        super().__init__(
            uvicorn.Config(
                self.gate,
                http=connection_kind(service.settings.send_timeout),
                host=address.host,
                port=address.port,
                access_log=False,
                server_header=False,
                log_level="warning",
                ssl_certfile=address.certificate,
                ssl_keyfile=address.private_key,
                timeout_graceful_shutdown=int(service.settings.drain_seconds) + _CLOSING_SECONDS,
            )
        )

    @property
    def port(self) -> int:
        """The port that it listens on, once it has started."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to load."""
        await super().startup(sockets)
        self._loading = asyncio.create_task(self._load())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for those that are open."""
        self.gate.is_draining = True
        cutting = asyncio.create_task(self._cut_off())
        await super().shutdown(sockets)
        cutting.cancel()

    async def _load(self) -> None:
        try:
            await self.service.models.preload()
        except Exception as error:
            self.load_error = error
            self.should_exit = True

    async def _cut_off(self) -> None:
        await asyncio.sleep(self.service.settings.drain_seconds)
        await asyncio.to_thread(self.service.models.close)
