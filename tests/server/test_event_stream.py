"""Clients that leave, that are slow, and that have to wait."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from mlx_agent_llm import Engine
from tests.support.servers import ASK, Visitor, ask, client_of, scripted_engine, serving, until_idle

LONG = "Hello. " * 300
PATH = "/v1/chat/completions"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASK, "max_tokens": 4000},
    "/v1/completions": {"prompt": "<|im_start|>assistant\n", "max_tokens": 4000},
    "/v1/responses": {"input": "hi", "max_output_tokens": 4000},
    "/v1/messages": {"messages": ASK, "max_tokens": 4000},
}


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("path", BODIES)
async def test_a_client_that_leaves_frees_what_it_held(path: str, is_streamed: bool) -> None:
    engine = scripted_engine([LONG])
    with serving(engine) as app:
        visitor = Visitor(app, path, {"model": "default", "stream": is_streamed, **BODIES[path]})
        await _until_running(engine)
        visitor.leave()
        async with asyncio.timeout(5):
            await visitor.task
        await until_idle(engine)
        assert engine.stats().num_generated_tokens < len(LONG)


async def test_a_client_that_leaves_while_its_request_is_added_frees_what_it_held() -> None:
    engine = scripted_engine([LONG])
    with serving(engine) as app:
        for _ in range(10):
            visitor = Visitor(app, "/v1/chat/completions", {"model": "default", "stream": True, "messages": ASK})
            await asyncio.sleep(0)
            visitor.leave()
            visitor.task.cancel()
            await asyncio.gather(visitor.task, return_exceptions=True)
        await until_idle(engine)


async def test_a_stream_that_waits_is_kept_alive() -> None:
    for path, quiet in {PATH: b": keep-alive\n\n", "/v1/messages": b"event: ping\n"}.items():
        engine = scripted_engine(_slow_to_begin())
        with serving(engine, keepalive_seconds=0.05) as app:
            visitor = Visitor(app, path, {"model": "default", "stream": True, **BODIES[path]})
            await visitor.took(quiet)
            await visitor.task
        assert b'"o"' in b"".join(visitor.taken)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        (PATH, b"data: [DONE]\n\n"),
        ("/v1/completions", b"data: [DONE]\n\n"),
        ("/v1/responses", b'"type":"response.failed"'),
        ("/v1/messages", b"event: error\n"),
    ],
)
async def test_what_is_being_written_can_be_cancelled_by_its_id(path: str, end: bytes) -> None:
    engine = scripted_engine([LONG])
    with serving(engine) as app:
        visitor = Visitor(app, path, {"model": "default", "stream": True, **BODIES[path]})
        await visitor.took(b'"id":"')
        reply_id = b"".join(visitor.taken).split(b'"id":"')[1].split(b'"')[0].decode()
        async with client_of(app) as client:
            cancelled = await client.delete(f"{path}/{reply_id}")
            async with asyncio.timeout(5):
                await visitor.task
            again = await client.delete(f"{path}/{reply_id}")
    assert cancelled.status_code == 200 and again.status_code == 404
    assert end in b"".join(visitor.taken[-2:])


async def test_streams_beside_each_other_are_not_mixed() -> None:
    number = itertools.count()
    engine = scripted_engine(lambda prompt: prompt.rpartition("user\n")[2].partition("<")[0] * 5)
    with serving(engine) as app:

        async def one() -> bool:
            text = f"[{next(number)}]"
            body = {"model": "default", "messages": [{"role": "user", "content": text}]}
            answer = (await ask(app, PATH, body)).json()
            return bool(answer["choices"][0]["message"]["content"] == text * 5)

        assert all(await asyncio.gather(*(one() for _ in range(24))))


def _slow_to_begin() -> Callable[[str], str]:
    """A model whose first token takes its time."""
    is_first = iter([True])

    def say(prompt: str) -> str:
        if next(is_first, False):
            time.sleep(0.3)
        return "ok"

    return say


async def _until_running(engine: Engine) -> None:
    async with asyncio.timeout(30):
        while not engine.stats().num_generated_tokens:
            await asyncio.sleep(0.005)
