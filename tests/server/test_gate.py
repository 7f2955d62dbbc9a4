"""Who is let in, how many at a time, and what they are told."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm.server.app import make_app
from mlx_agent_llm.server.keys import Keys
from tests.support.servers import ASK, Visitor, ask, chat, client_of, scripted_engine, service_of, serving, until_idle

BODY = {"model": "default", "messages": ASK}
PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "bearer also right"}, 200),
        ({"x-api-key": "right"}, 200),
    ],
)
async def test_a_key_lets_a_client_in(headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serving(["Hello."], keys=["right", "also right"]) as app:
        response = await ask(app, PATH, BODY, **headers)
    assert response.status_code == status
    assert "right" not in caplog.text + (response.text if status == 401 else "")


async def test_health_needs_no_key() -> None:
    with serving(["Hello."], keys=["right"]) as app:
        async with client_of(app) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/v1/models")).status_code == 401


def test_keys_are_compared_whatever_they_are_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    from starlette.datastructures import Headers

    compared: list[bytes] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Keys(["one", "a much longer key"])
    keys.owner(Headers({"x-api-key": "one"}))
    assert len(compared) == 2 and {len(digest) for digest in compared} == {32}


def test_keys_come_from_a_file_that_has_some(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n\nfirst\n  second \n")
    assert len(Keys.read(path)._digests) == 2
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="holds no key"):
        Keys.read(path)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example:8000"}, "forbidden_host"),
        ({"origin": "http://evil.example"}, "forbidden_origin"),
        ({"origin": "null"}, "forbidden_origin"),
        ({"origin": "http://127.0.0.1:8000"}, None),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, None),
    ],
)
async def test_pages_of_other_origins_are_kept_out(headers: dict[str, str], code: str | None) -> None:
    with serving(["Hello."]) as app:
        response = await ask(app, PATH, BODY, **headers)
    assert response.status_code == (200 if code is None else 403)
    assert "access-control-allow-origin" not in response.headers
    assert code is None or response.json()["error"]["code"] == code


async def test_a_body_that_a_foreign_form_could_send_is_refused() -> None:
    with serving(["Hello."]) as app:
        response = await ask(app, PATH, BODY, **{"content-type": "text/plain"})
    assert response.status_code == 415


async def test_too_many_open_requests_of_a_key_are_told_to_come_again() -> None:
    engine = scripted_engine(["Hello. " * 300])
    with serving(engine, max_open_requests=2) as app:
        streams = [Visitor(app, PATH, {**BODY, "stream": True}) for _ in range(2)]
        for stream in streams:
            await stream.took(b"Hello"[:1])
        refused = await chat(app)
        for stream in streams:
            stream.leave()
        await asyncio.gather(*(stream.task for stream in streams))
        await until_idle(engine)
        after = await chat(app, max_tokens=2)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert after.status_code == 200


async def test_a_full_queue_is_told_to_come_again() -> None:
    engine = scripted_engine(["Hello. " * 300], max_queue=1, max_num_seqs=1)
    with serving(engine) as app:
        streams = [Visitor(app, PATH, {**BODY, "stream": True}) for _ in range(4)]
        done, _ = await asyncio.wait([stream.task for stream in streams], return_when=asyncio.FIRST_COMPLETED)
        refused = [b"".join(stream.taken) for stream in streams if stream.task in done]
        for stream in streams:
            stream.leave()
        await asyncio.gather(*(stream.task for stream in streams))
    assert all(b"queue_full" in body for body in refused)


async def test_a_server_that_ends_takes_nothing_new() -> None:
    with serving(["Hello."]) as app:
        app.is_draining = True
        response = await chat(app)
    assert response.status_code == 503 and "retry-after" in response.headers


async def test_a_server_that_others_reach_does_not_ask_for_loopback_names() -> None:
    engine = scripted_engine(["Hello."])
    app: Any = make_app(service_of(engine), Keys(["right"]), is_loopback=False)
    response = await ask(app, PATH, BODY, host="mac.local:8000", **{"x-api-key": "right"})
    engine.close()
    assert response.status_code == 200
