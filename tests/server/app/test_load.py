"""Many clients at a time that leave, send nonsense and read slowly leave nothing behind."""

import asyncio
import os
import random
import resource
import time

import httpx
import pytest

from mlx_agent_llm.server.app import DrainingServer
from tests.support.servers import ASK, listening, scripted_engine, url_of, wait_until

NUM_CLIENTS = 64
SECONDS = float(os.environ.get("LOAD_SECONDS", "20"))  # the first half fills what is cached and pooled
BODY = {"model": "default", "messages": ASK, "stream": True, "max_tokens": 400}
JSON = {"content-type": "application/json"}
NONSENSE = (b"{", b"\xff", b'{"model": 1}', b"[]" * 1000)


class Load:
    """Clients of one kind and another; num_ended: the streams that were read to their terminator."""

    def __init__(self, client: httpx.AsyncClient, until: float) -> None:
        self._client = client
        self._until = until
        self._generator = random.Random(0)
        self.num_ended = 0

    async def visit(self) -> None:
        while time.monotonic() < self._until:
            kind = self._generator.choice(["read", "read", "leave", "nonsense", "slow"])
            await (self._talk_nonsense() if kind == "nonsense" else self._read(kind))

    async def _talk_nonsense(self) -> None:
        body = self._generator.choice(NONSENSE)
        response = await self._client.post("/v1/chat/completions", content=body, headers=JSON)
        assert response.status_code == 400

    async def _read(self, kind: str) -> None:
        async with self._client.stream("POST", "/v1/chat/completions", json=BODY) as response:
            if response.status_code == 429:
                return
            assert response.status_code == 200
            last = ""
            async for line in response.aiter_lines():
                last = line or last
                if kind == "leave" and self._generator.random() < 0.05:
                    return
                if kind == "slow":
                    await asyncio.sleep(0.01)
            assert last == "data: [DONE]"
            self.num_ended += 1


async def load(url: str, seconds: float) -> int:
    """How many streams were read to their end."""
    limits = httpx.Limits(max_connections=NUM_CLIENTS + 16)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        load = Load(client, time.monotonic() + seconds)
        await asyncio.gather(*(load.visit() for _ in range(NUM_CLIENTS)))
    return load.num_ended


def num_tasks(server: DrainingServer) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(count(), server.servers[0].get_loop()).result()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
def test_many_clients_leave_nothing_behind() -> None:
    engine = scripted_engine(["Hello. " * 28])
    with listening(engine) as server:
        num_before = num_tasks(server)
        assert asyncio.run(load(url_of(server), SECONDS / 2)) > 0
        peak = peak_bytes()
        assert asyncio.run(load(url_of(server), SECONDS / 2)) > 0
        wait_until(lambda: engine.stats().num_used_blocks == 0)
        wait_until(lambda: num_tasks(server) <= num_before)
        assert not server.service.open_replies._replies and not server.gate._num_open
        assert peak_bytes() - peak < 64 * 2**20
