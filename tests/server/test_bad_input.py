"""What no request may be is refused alike by all three APIs, each in its own envelope; the server goes on."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from mlx_agent_llm.server.gate import Gate
from tests.support.servers import ADD, ADD_TOOL, ASK, ask, serving

KEY = {"authorization": "Bearer right"}
LONG = "x" * 9000
ASKED = {"role": "user", "content": "hi"}


DEEP = "a schema of 1,000 levels"  # json.dumps writes none as deep
DEEP_JSON = '{"type": "array", "items": ' * 1000 + "{}" + "}" * 1000


def chat_turns(*answers: str) -> list[dict[str, Any]]:
    """A call c1, and answers to calls of these ids."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    results = [{"role": "tool", "tool_call_id": one, "content": "3"} for one in answers]
    return [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, *results]


def items(*answers: str) -> list[dict[str, Any]]:
    """The same as items of a response."""
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1, "b": 2}'}
    return [ASKED, call, *({"type": "function_call_output", "call_id": one, "output": "3"} for one in answers)]


def blocks(*answers: str) -> list[dict[str, Any]]:
    """The same as blocks of messages."""
    call = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1, "b": 2}}
    results = [{"type": "tool_result", "tool_use_id": one, "content": "3"} for one in answers]
    return [ASKED, {"role": "assistant", "content": [call]}, {"role": "user", "content": results or "?"}]


class API(NamedTuple):
    """A path, what any request of it has, and its own form of each thing that is wrong."""

    path: str
    body: dict[str, Any]
    tool: dict[str, Any]
    deep: dict[str, Any]
    long: dict[str, Any]
    orphan: dict[str, Any]
    twice: dict[str, Any]
    unanswered: dict[str, Any]


APIS = {
    "chat": API(
        "/v1/chat/completions",
        {"messages": ASK},
        ADD_TOOL,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": DEEP}}},
        {"messages": [{"role": "user", "content": LONG}]},
        {"messages": [*ASK, {"role": "tool", "tool_call_id": "c9", "content": "3"}]},
        {"messages": chat_turns("c1", "c1")},
        {"messages": chat_turns()},
    ),
    "responses": API(
        "/v1/responses",
        {"input": "hi"},
        {"type": "function", **ADD},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": DEEP}}},
        {"input": LONG},
        {"input": [ASKED, {"type": "function_call_output", "call_id": "c9", "output": "3"}]},
        {"input": items("c1", "c1")},
        {"input": items()},
    ),
    "messages": API(
        "/v1/messages",
        {"messages": ASK, "max_tokens": 50},
        {"name": "add", "input_schema": ADD["parameters"]},
        {"output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
        {"messages": [{"role": "user", "content": LONG}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c9", "content": "3"}]}]},
        {"messages": blocks("c1", "c1")},
        {"messages": blocks()},
    ),
}


@pytest.fixture(scope="module")
def app() -> Iterator[Gate]:
    with serving(["Hello."], keys=["right"]) as app:
        yield app


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> API:
    return APIS[request.param]


def name_of(api: API) -> str:
    return next(name for name, one in APIS.items() if one is api)


def error_of(response: httpx.Response, api: API, status: int, kind: str) -> str:
    """The message of an error in the API's own envelope."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    if api.path == "/v1/messages":
        assert body.keys() == {"type", "error"} and body["type"] == "error"
    else:
        assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["type"] == kind
    return str(body["error"]["message"])


async def refused(app: Gate, api: API, body: Any) -> str:
    """The message of a 400, of a request for a stream; the next request is answered."""
    if isinstance(body, dict):
        text = json.dumps({"model": "default", **api.body, "stream": True, **body})
        body = text.replace(json.dumps(DEEP), DEEP_JSON).encode()
    message = error_of(await ask(app, api.path, body, **KEY), api, 400, "invalid_request_error")
    assert (await ask(app, api.path, {"model": "default", **api.body}, **KEY)).status_code == 200
    return message


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
async def test_a_wrong_key_is_a_401(app: Gate, api: API, headers: dict[str, str]) -> None:
    response = await ask(app, api.path, {"model": "default", **api.body}, **headers)
    assert "wrong API key" in error_of(response, api, 401, "authentication_error")


async def test_an_unknown_model_is_a_404_with_those_that_there_are(app: Gate, api: API) -> None:
    kind = "not_found_error" if api.path == "/v1/messages" else "invalid_request_error"
    response = await ask(app, api.path, {**api.body, "model": "gpt-9"}, **KEY)
    assert "'gpt-9' is not served; known models: 'default', 'scripted'" in error_of(response, api, 404, kind)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"colour": "red"}, "unknown parameter: colour"), ({"temperature": "hot"}, "temperature='hot'")],
)
async def test_a_parameter_is_named(app: Gate, api: API, fields: dict[str, Any], message: str) -> None:
    assert message in await refused(app, api, fields)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model": ', "not JSON"),
        (b'{"model": "\xff"}', "not UTF-8 at byte 11"),
        (b'{"model": "default", "metadata": {"a": "b\\ud800"}}', "metadata.a holds a lone surrogate at index 1"),
        (b'{"model": "default", "metadata": {"a": "b\\u0000"}}', "metadata.a holds a NUL character at index 1"),
    ],
)
async def test_a_body_that_is_no_text_is_refused(app: Gate, api: API, body: bytes, message: str) -> None:
    assert message in await refused(app, api, body)


async def test_a_schema_of_1_000_levels_is_refused(app: Gate, api: API) -> None:
    assert "is nested more than 100 levels deep" in await refused(app, api, api.deep)


async def test_a_schema_that_is_too_large_is_refused_by_its_name(app: Gate, api: API) -> None:
    name = {"chat": "response_format", "responses": "text.format", "messages": "output_config.format"}[name_of(api)]
    large = json.dumps(api.deep).replace(json.dumps(DEEP), json.dumps({"const": "x" * 2**18}))
    told = await refused(app, api, json.loads(large))
    assert told.startswith(f"{name}=<") and told.endswith("bytes> must be at most 262144 bytes")


async def test_200_tools_are_refused(app: Gate, api: API) -> None:
    assert "tools holds 200 items: must be at most 128" in await refused(app, api, {"tools": [api.tool] * 200})


async def test_a_context_that_overflows_is_refused(app: Gate, api: API) -> None:
    assert "max_model_len=8192" in await refused(app, api, api.long)


async def test_every_result_needs_its_call_and_every_call_one_result(app: Gate, api: API) -> None:
    places = {
        "chat": ("messages[1].tool_call_id", "messages[3].tool_call_id", "messages[1].tool_calls[0].id"),
        "responses": ("input[1].call_id", "input[3].call_id", "input[1].call_id"),
        "messages": (
            "messages[0].content[0].tool_use_id",
            "messages[2].content[1].tool_use_id",
            "messages[1].content[0].id",
        ),
    }[name_of(api)]
    for fields, place, words in zip(
        (api.orphan, api.twice, api.unanswered),
        places,
        ("='c9' must be", "='c1' is answered a second time", "='c1' has no answer"),
        strict=True,
    ):
        assert place + words in await refused(app, api, fields)


async def test_turns_are_counted_as_the_request_has_them(app: Gate) -> None:
    """With a system prompt before them the engine counts one more."""
    bad = {"type": "tool_result", "tool_use_id": "c9", "content": "3"}
    told = await refused(
        app, APIS["messages"], {"system": "Be brief.", "messages": [{"role": "user", "content": [bad]}]}
    )
    assert "messages[0].content[0].tool_use_id='c9'" in told
    item = {"type": "function_call_output", "call_id": "c9", "output": "3"}
    told = await refused(app, APIS["responses"], {"instructions": "Be brief.", "input": [item]})
    assert "input[0].call_id='c9'" in told
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{"}
    answer = {**item, "call_id": "c1"}
    assert "input[1].arguments='{'" in await refused(app, APIS["responses"], {"input": [ASKED, call, answer]})
