"""Readers of a server's streams, in a process of their own: what they take is not the server's."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from typing import NamedTuple


class Read(NamedTuple):
    """Seconds until all streams had ended, and how many tokens they had."""

    seconds: float
    num_tokens: int


def read_in_a_process(port: int, body: dict[str, object], num_streams: int) -> Read:
    """Read so many streams of chat completions at a time; a stream without its terminator is an AssertionError."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read_all, (port, json.dumps(body).encode(), num_streams))


def _read_all(port: int, body: bytes, num_streams: int) -> Read:
    async def run() -> Read:
        began = time.perf_counter()
        counts = await asyncio.gather(*(_read(port, body) for _ in range(num_streams)))
        return Read(time.perf_counter() - began, sum(counts))

    return asyncio.run(run())


async def _read(port: int, body: bytes) -> int:
    """The tokens of one stream. HTTP by hand, so that the readers hardly take a core from the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    assert b"data: [DONE]" in answer, answer[-500:]
    return answer.count(b'"delta":{"content":"x"}')
