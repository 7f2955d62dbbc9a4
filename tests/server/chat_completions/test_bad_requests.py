"""What is wrong with a request is said before anything is sent, in the envelope of the API."""

import time
from typing import Any

import pytest

from tests.support.servers import ADD_TOOL, ASK, ask, chat, serving

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "3"}
UNSAYABLE = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}, "required": ["a"]}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"colour": "red"}, "colour", "unknown parameter: colour"),
    ({"stream_options": {"include_usages": True}}, "stream_options.include_usages", "unknown parameter"),
    ({"temperature": "hot"}, "temperature", "'hot'"),
    ({"temperature": 1e5}, "temperature", "between 0 and 10000"),
    ({"n": 0}, "n", "between 1 and 16"),
    ({"n": 17}, "n", "between 1 and 16"),
    ({"n": True}, "n", "True"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"stop": [""]}, "stop", "non-empty"),
    ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
    ({"logit_bias": {"a": 1}}, "logit_bias", "'a'"),
    ({"tools": [ADD_TOOL] * 200}, "tools", "at most 128"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "'web_search'"),
    ({"tools": [ADD_TOOL], "tool_choice": "subtract"}, "tool_choice", "'add'"),
    ({"tool_choice": "required"}, "tool_choice", "needs tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": UNSAYABLE}}}, None, "pattern"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": nested(400)}}}, None, "levels deep"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one"),
    ({"structured_outputs": {"regex": "("}}, "pattern", "never closed"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort", "'enormous'"),
    ({"max_reasoning_tokens": 5}, "max_reasoning_tokens", "reasoning"),
    ({"store": True}, "store", "False"),
    ({"stream_options": {}}, "stream_options", "needs stream"),
    ({"messages": []}, "messages", "non-empty"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "'robot'"),
    ({"messages": [*ASK, CALLED]}, "messages[1].tool_calls[0].id", "has no answer"),
    ({"messages": [*ASK, CALLED, *ASK]}, "messages[1].tool_calls[0].id", "has no answer"),
    ({"messages": [*ASK, ANSWER]}, "messages[1].tool_call_id", "earlier assistant message"),
    ({"messages": [*ASK, CALLED, ANSWER, ANSWER]}, "messages[3].tool_call_id", "second time"),
    ({"messages": [*ASK, {"role": "function", "name": "add", "content": "3"}]}, None, "no call of 'add'"),
    ({"messages": [{"role": "user", "content": "x" * 9000}]}, "messages", "max_model_len"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "only text"),
]


@pytest.fixture(scope="module")
def app() -> Any:
    with serving(["Hello."]) as app:
        yield app


@pytest.mark.parametrize(("options", "param", "message"), BAD)
async def test_a_bad_request_is_named_before_its_stream_begins(
    app: Any, options: dict[str, Any], param: str | None, message: str
) -> None:
    response = await chat(app, **{"messages": ASK, "stream": options.get("stream_options") != {}, **options})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]
    assert param is None or error["param"] == param


BODIES: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"[]", "must be a JSON object"),
    (b'{"model": "\xff"}', "not UTF-8"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "\\ud800"}]}', "lone surrogate"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "a\\u0000b"}]}', "NUL"),
    (b'{"temperature": NaN}', "NaN"),
    (b'{"temperature": 1e999}', "too large"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
    (b'{"a":' * 1000 + b"1" + b"}" * 1000, "levels deep"),
    (b"[" * 100000, "deep"),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize(("body", "message"), BODIES)
async def test_a_body_that_is_none_is_refused_at_once(app: Any, path: str, body: bytes, message: str) -> None:
    begin = time.perf_counter()
    response = await ask(app, path, body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert time.perf_counter() - begin < 2


async def test_a_body_that_is_too_large_is_a_413() -> None:
    with serving(["Hello."], max_body_bytes=1000) as app:
        response = await chat(app, [{"role": "user", "content": "x" * 1000}])
    assert response.status_code == 413 and "1000 bytes" in response.json()["error"]["message"]


async def test_a_schema_that_is_too_large_is_refused() -> None:
    with serving(["Hello."], max_schema_bytes=100) as app:
        response = await chat(app, tools=[ADD_TOOL])
    assert response.status_code == 400 and response.json()["error"]["param"] == "tools"


async def test_an_unknown_model_is_a_404_that_names_those_that_there_are(app: Any) -> None:
    response = await ask(app, "/v1/chat/completions", {"model": "gpt-9", "messages": ASK})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "'default', 'scripted'" in response.json()["error"]["message"]


async def test_an_unknown_route_and_method_have_the_envelope_too(app: Any) -> None:
    assert (await ask(app, "/v1/nothing", {})).json()["error"]["code"] == "unknown_route"
    response = await ask(app, "/v1/models", {})
    assert response.status_code == 405 and response.json()["error"]["code"] == "unknown_route"


async def test_the_context_that_overflows_is_a_400_on_every_route_before_any_event(app: Any) -> None:
    long = "x" * 9000
    turns = [{"role": "user", "content": long}]
    for path, fields in {
        "/v1/chat/completions": {"messages": turns},
        "/v1/completions": {"prompt": long},
        "/v1/responses": {"input": long},
        "/v1/messages": {"messages": turns, "max_tokens": 5},
    }.items():
        response = await ask(app, path, {"model": "default", "stream": True, **fields})
        assert response.status_code == 400, path
        assert "max_model_len" in response.json()["error"]["message"]
