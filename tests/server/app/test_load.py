"""Many clients at a time that leave, send nonsense, read slowly or not at all leave nothing behind."""

import asyncio
import os
import random
import resource
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from mlx_agent_llm.server.app import DrainingServer
from tests.support.servers import ADD_TOOL, ASK, Sleeper, listening, scripted_engine, url_of, wait_until

NUM_CLIENTS = 64
SECONDS = float(os.environ.get("LOAD_SECONDS", "20"))  # the first half fills what is cached and pooled
SEND_TIMEOUT = 2.0
JSON = {"content-type": "application/json"}
NONSENSE = (b"{", b"\xff", b'{"model": 1}', b"[]" * 1000, b'{"a":' * 1000, b'{"model": "default", "colour": 1}')
STREAMS: dict[str, tuple[dict[str, Any], str]] = {  # what is asked for, and the last line of the answer
    "/v1/chat/completions": ({"messages": ASK, "tools": [ADD_TOOL], "max_tokens": 400}, "data: [DONE]"),
    "/v1/completions": ({"prompt": "<|im_start|>assistant\n", "max_tokens": 400}, "data: [DONE]"),
    "/v1/responses": ({"input": "hi", "max_output_tokens": 400}, 'data: {"type":"response.'),
    "/v1/messages": ({"messages": ASK, "max_tokens": 400}, 'data: {"type":"message_stop"}'),
}


class Load:
    """Clients of one kind and another until a time; counts: what they did, and streams by how they ended."""

    def __init__(self, client: httpx.AsyncClient, server: DrainingServer, until: float) -> None:
        self._client = client
        self._server = server
        self._until = until
        self._generator = random.Random(0)
        self.counts: Counter[str] = Counter()

    async def visit(self) -> None:
        while time.monotonic() < self._until:
            kind = self._generator.choices(["read", "leave", "nonsense", "slow", "sleep"], [8, 4, 4, 4, 1])[0]
            if kind == "nonsense":
                await self._talk_nonsense()
            elif kind == "sleep":
                self.counts["cut off"] += await asyncio.to_thread(self._sleep)
            else:
                await self._read(kind)
            self.counts[kind] += 1

    async def _talk_nonsense(self) -> None:
        path = self._generator.choice(list(STREAMS))
        response = await self._client.post(path, content=self._generator.choice(NONSENSE), headers=JSON)
        assert response.status_code == 400 and response.json()["error"]["message"]

    def _sleep(self) -> bool:
        """Whether the server had enough of it; an answer may begin late."""
        with Sleeper(self._server, is_streamed=self._generator.random() < 0.5) as client:
            time.sleep(3 * SEND_TIMEOUT)
            return not client.rest().endswith(b"0\r\n\r\n")

    async def _read(self, kind: str) -> None:
        path = self._generator.choice(list(STREAMS))
        body, end = STREAMS[path]
        async with self._client.stream("POST", path, json={"model": "default", "stream": True, **body}) as response:
            assert response.status_code == 200
            last = ""
            async for line in response.aiter_lines():
                last = line or last
                if kind == "leave" and self._generator.random() < 0.05:
                    return
                if kind == "slow":
                    await asyncio.sleep(0.01)
            assert last.startswith(end), last
            self.counts[f"ended {path}"] += 1


async def load(server: DrainingServer, seconds: float) -> Counter[str]:
    """What clients did in so many seconds."""
    limits = httpx.Limits(max_connections=NUM_CLIENTS + 16)
    async with httpx.AsyncClient(base_url=url_of(server), timeout=120, limits=limits) as client:
        load = Load(client, server, time.monotonic() + seconds)
        await asyncio.gather(*(load.visit() for _ in range(NUM_CLIENTS)))
    return load.counts


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
    with listening(engine, send_timeout=SEND_TIMEOUT, max_stored_responses=100) as server:
        num_before = num_tasks(server)
        first = asyncio.run(load(server, SECONDS / 2))
        peak = peak_bytes()
        second = asyncio.run(load(server, SECONDS / 2))
        growth = peak_bytes() - peak
        print(
            f"\n{NUM_CLIENTS} clients, {SECONDS:.0f} s: {dict(first + second)}; {growth / 2**20:.1f} MiB more in half"
        )
        wait_until(lambda: engine.stats().num_used_blocks == 0)
        wait_until(lambda: num_tasks(server) <= num_before)
        wait_until(lambda: not server.server_state.connections)
        assert not server.service.open_replies._replies and not server.gate._num_open
        assert second["cut off"] and all(second[f"ended {path}"] for path in STREAMS)
        assert growth < 64 * 2**20
