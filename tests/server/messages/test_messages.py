"""Anthropic's messages: what their clients read, streamed and whole."""

from typing import Any

import pytest

from mlx_agent_llm.server.messages.request import MessagesRequest
from tests.support.servers import (
    ADD,
    ADD_CALL,
    ASK,
    Visitor,
    ask,
    breaking,
    events_of,
    scripted_engine,
    serving,
    thinking_engine,
)

TOOL = {"name": "add", "description": "Add two integers.", "input_schema": ADD["parameters"]}
TWO_CALLS = "Let me add." + ADD_CALL + "\n" + ADD_CALL


async def send(app: Any, **options: Any) -> Any:
    return await ask(app, "/v1/messages", {"model": "default", "max_tokens": 400, "messages": ASK, **options})


def blocks_of(events: list[Any]) -> list[dict[str, Any]]:
    """What a client makes of the events of blocks."""
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
        if event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            blocks[-1]["text"] = blocks[-1].get("text", "") + delta.get("text", "")
            blocks[-1]["thinking"] = blocks[-1].get("thinking", "") + delta.get("thinking", "")
            blocks[-1]["json"] += delta.get("partial_json", "")
    return blocks


async def test_an_answer_is_told_whole() -> None:
    with serving(["Hello."]) as app:
        answer = (await send(app)).json()
    assert answer["content"] == [{"type": "text", "text": "Hello."}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    assert answer["usage"]["output_tokens"] == 7


async def test_a_stream_begins_with_the_prompts_tokens_and_ends_with_the_rest_of_the_usage() -> None:
    with serving(["Hello."]) as app:
        await send(app)
        events = events_of(await send(app, stream=True))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    usage = events[-2]["usage"]
    assert events[0]["message"]["usage"]["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert usage["cache_read_input_tokens"] > 0 and usage["output_tokens"] == 7
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


async def test_calls_are_blocks_without_gaps_whose_input_comes_in_pieces() -> None:
    with serving([TWO_CALLS]) as app:
        whole = (await send(app, tools=[TOOL])).json()
        events = events_of(await send(app, tools=[TOOL], stream=True))
    blocks = blocks_of(events)
    assert [block["type"] for block in blocks] == ["text", "tool_use", "tool_use"]
    assert [block["type"] for block in whole["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["json"] for block in blocks[1:]] == ['{"a": 19, "b": 23}'] * 2
    assert [block["input"] for block in whole["content"][1:]] == [{"a": 19, "b": 23}] * 2
    assert sum(event.get("delta", {}).get("type") == "input_json_delta" for event in events) > 4
    assert whole["stop_reason"] == events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("options", "reason", "sequence"),
    [({"max_tokens": 3}, "max_tokens", None), ({"stop_sequences": ["w", "o, "]}, "stop_sequence", "o, ")],
)
async def test_the_reason_of_the_end_is_told(options: dict[str, Any], reason: str, sequence: str | None) -> None:
    with serving(["Hello, world."]) as app:
        answer = (await send(app, **options)).json()
        events = events_of(await send(app, stream=True, **options))
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    assert events[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


async def test_what_was_thought_is_shown_where_it_is_asked_for_and_nowhere_else() -> None:
    with serving(thinking_engine("<think>Three cubed.</think>27.")) as app:
        asked = (await send(app, thinking={"type": "adaptive"})).json()
        events = events_of(await send(app, thinking={"type": "adaptive"}, stream=True))
        unasked = (await send(app)).json()
        omitted = (await send(app, thinking={"type": "adaptive", "display": "omitted"})).json()
    streamed = blocks_of(events)
    deltas = {event["delta"]["type"] for event in events if event["type"] == "content_block_delta"}
    assert deltas == {"thinking_delta", "text_delta"}  # no signature, which nobody here writes
    assert [block["type"] for block in asked["content"]] == ["thinking", "text"]
    assert streamed[0]["thinking"] == asked["content"][0]["thinking"] == "Three cubed."
    assert [block["type"] for block in unasked["content"]] == ["text"]
    assert [block["type"] for block in omitted["content"]] == ["text"]


async def test_thinking_has_a_budget() -> None:
    with serving(thinking_engine("<think>Three cubed is many.</think>27.")) as app:
        thinking = {"type": "enabled", "budget_tokens": 12}
        answer = (await send(app, thinking=thinking)).json()
    assert len(answer["content"][0]["thinking"]) < len("Three cubed is many.")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}], "tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}},
    ],
)
async def test_counted_tokens_are_those_of_the_usage(options: dict[str, Any]) -> None:
    with serving([ADD_CALL]) as app:
        counted = await ask(app, "/v1/messages/count_tokens", {"model": "default", "messages": ASK, **options})
        usage = (await send(app, **options)).json()["usage"]
    assert counted.json()["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


async def test_a_conversation_with_calls_and_thoughts_goes_on() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "ok"

    turns = [
        *ASK,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Adding."},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1, "b": 2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "three"}]},
                {"type": "text", "text": "Go on."},
            ],
        },
        {"role": "assistant", "content": "Fine."},
        {"role": "system", "content": "From now on be brief."},
        {"role": "user", "content": "And?"},
    ]
    with serving(reply) as app:
        assert (await send(app, messages=turns, tools=[TOOL])).status_code == 200
    places = [prompts[0].index(text) for text in ("Adding.", "three", "Go on.", "Fine.", "From now on", "And?")]
    assert places == sorted(places)


async def test_the_header_that_a_client_numbers_costs_no_prefix() -> None:
    def system(number: int) -> list[dict[str, Any]]:
        texts = [f"x-anthropic-billing-header: cc_version=2.1; cch={number};", "You write code. " * 40]
        return [{"type": "text", "text": text} for text in texts]

    with serving(["Hello.", "Again."]) as app:
        first = await send(app, system=system(1))
        turns = [*ASK, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "more"}]
        second = (await send(app, system=system(2), messages=turns)).json()["usage"]
    assert first.headers["x-mlx-agent-left-out"] == "billing header"
    num_first = sum(first.json()["usage"][name] for name in ("input_tokens", "cache_read_input_tokens"))
    assert second["cache_read_input_tokens"] >= 0.95 * num_first


async def test_what_only_begins_like_that_header_is_kept() -> None:
    text = "x-anthropic-billing-header: cch=1;\nYou write code."
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Hello."

    with serving(reply) as app:
        for system in (text, [{"type": "text", "text": text}]):
            assert "x-mlx-agent-left-out" not in (await send(app, system=system)).headers
        told = await send(app, system="x-anthropic-billing-header: cch=1;")
    assert told.headers["x-mlx-agent-left-out"] == "billing header"
    assert ["You write code." in prompt for prompt in (prompts[0], prompts[-1])] == [True, False]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"colour": "red"}, "colour"),
    ({"tools": [{**TOOL, "colour": "red"}]}, "tools[0].colour"),
    ({"tools": [{**TOOL, "type": "bash_20250124"}]}, "tools[0].type"),
    ({"tool_choice": {"type": "tool"}, "tools": [TOOL]}, "tool_choice.name"),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits[0].type"),
    ({"output_config": {"effort": "enormous"}}, "output_config.effort='enormous'"),
    ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking=True needs"),
    ({"stop_sequences": [""]}, "stop_sequences=('',) must"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "no"}]}]}, "'no'"),
    (
        {
            "messages": [
                *ASK,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "a", "input": {}}]},
            ]
        },
        "has no answer",
    ),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "objec"}}}}, "'objec'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
async def test_a_bad_request_is_named_in_anthropics_envelope(options: dict[str, Any], message: str) -> None:
    with serving(["Hello."]) as app:
        response = await send(app, **options)
    assert response.status_code == 400, response.text
    body = response.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert message in body["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "headers", "status", "kind"),
    [
        ({}, {"x-api-key": "wrong"}, 401, "authentication_error"),
        ({"max_body_bytes": 50}, {"x-api-key": "right"}, 413, "request_too_large"),
    ],
)
async def test_errors_of_the_server_have_anthropics_types(
    settings: dict[str, Any], headers: dict[str, str], status: int, kind: str
) -> None:
    with serving(["Hello."], keys=["right"], **settings) as app:
        body = {"model": "default", "max_tokens": 5, "messages": ASK}
        response = await ask(app, "/v1/messages", body, **headers)
    assert response.status_code == status and response.json()["error"]["type"] == kind


async def test_a_server_that_ends_is_overloaded_and_an_answer_that_fails_an_api_error() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        failed = await send(app)
        app.is_draining = True
        ending = await send(app)
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "api_error")
    assert (ending.status_code, ending.json()["error"]["type"]) == (503, "overloaded_error")


async def test_too_many_open_requests_are_a_rate_limit() -> None:
    engine = scripted_engine(["Hello. " * 300])
    with serving(engine, max_open_requests=1) as app:
        stream = Visitor(app, "/v1/messages", {"model": "default", "max_tokens": 400, "messages": ASK, "stream": True})
        await stream.took(b'"text":"H')
        refused = await send(app)
        stream.leave()
        await stream.task
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert refused.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("options", "thinks"),
    [
        ({}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, "medium"),
        ({"output_config": {"effort": "max"}}, "high"),
    ],
)
def test_effort_is_how_much_is_thought_where_thinking_is_not_switched_off(options: Any, thinks: Any) -> None:
    request = MessagesRequest(model="default", max_tokens=5, messages=[*ASK], **options)
    assert request.options()["enable_thinking"] == thinks


async def test_an_unknown_model_is_not_found() -> None:
    with serving(["Hello."]) as app:
        response = await send(app, model="claude")
    assert response.status_code == 404 and response.json()["error"]["type"] == "not_found_error"


async def test_a_stream_that_fails_ends_with_an_error_event() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        events = events_of(await send(app, stream=True))
    assert events[-1]["type"] == "error" and events[-1]["error"]["type"] == "api_error"


async def test_an_answer_is_the_json_that_was_asked_for() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with serving(['{"n": 7} and more']) as app:
        answer = (await send(app, output_config={"format": {"type": "json_schema", "schema": schema}})).json()
    assert answer["content"] == [{"type": "text", "text": '{"n": 7}'}]
