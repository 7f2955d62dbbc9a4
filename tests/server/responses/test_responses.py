"""OpenAI's responses: the order of their events, what is remembered, and how they end."""

from typing import Any

import pytest

from tests.support.servers import ADD, ADD_CALL, ask, breaking, client_of, events_of, serving, thinking_engine

TOOL = {"type": "function", **ADD}


async def send(app: Any, text: Any = "hi", **options: Any) -> Any:
    return await ask(app, "/v1/responses", {"model": "default", "input": text, **options})


def kinds_of(events: list[Any]) -> list[str]:
    """The types of events, those of equal pieces once."""
    kinds = [event["type"].removeprefix("response.") for event in events]
    return [kind for index, kind in enumerate(kinds) if index == 0 or kind != kinds[index - 1]]


MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
REASONING = [kind.replace("output_text", "reasoning_text") for kind in MESSAGE]
CALL = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]


async def test_events_come_in_the_order_that_clients_expect() -> None:
    with serving(thinking_engine("<think>Three cubed.</think>27.")) as app:
        events = events_of(await send(app, stream=True))
    assert kinds_of(events) == ["created", "in_progress", *REASONING, *MESSAGE, "completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["output"][0]["content"] == [{"type": "reasoning_text", "text": "Three cubed."}]
    assert response["output"][1]["content"][0]["text"] == "27."
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def test_a_call_is_an_item_of_its_own() -> None:
    with serving(["Adding." + ADD_CALL]) as app:
        events = events_of(await send(app, stream=True, tools=[TOOL]))
    assert kinds_of(events) == ["created", "in_progress", *MESSAGE, *CALL, "completed"]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]
    assert items[1]["arguments"] == '{"a": 19, "b": 23}' and items[1]["name"] == "add"
    pieces = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert "".join(pieces) == items[1]["arguments"] and len(pieces) > 3


async def test_an_answer_is_the_last_event_of_its_stream() -> None:
    with serving(["Hello."]) as app:
        whole = (await send(app)).json()
        streamed = events_of(await send(app, stream=True))[-1]["response"]
    ids = {"id", "created_at", "usage", "output"}
    assert {key: whole[key] for key in whole.keys() - ids} == {key: streamed[key] for key in streamed.keys() - ids}
    assert whole["output"][0]["content"] == streamed["output"][0]["content"]
    assert whole["status"] == "completed"


@pytest.mark.parametrize("reply", ["Hello, world, again.", "<think>Hm, let me see, and again.</think>Yes."])
async def test_a_budget_that_ends_is_incomplete_also_inside_reasoning(reply: str) -> None:
    with serving(thinking_engine(reply)) as app:
        whole = (await send(app, max_output_tokens=12)).json()
        events = events_of(await send(app, max_output_tokens=12, stream=True))
    assert events[-1]["type"] == "response.incomplete"
    for response in (whole, events[-1]["response"]):
        assert response["status"] == response["output"][-1]["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["usage"]["output_tokens"] == 12


async def test_a_failure_is_told_as_one() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        events = events_of(await send(app, stream=True))
    assert events[-1]["type"] == "response.failed"
    response = events[-1]["response"]
    assert response["status"] == "failed" and response["error"]["code"] == "server_error"
    assert "the model broke" in response["error"]["message"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_a_whole_answer_that_fails_is_a_500() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        response = await send(app)
    assert response.status_code == 500 and "the model broke" in response.json()["error"]["message"]


async def test_a_conversation_goes_on_from_a_response() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "It is 42." if "forty-two" in prompt else ADD_CALL

    with serving(reply) as app:
        first = (await send(app, "What is 19 + 23?", tools=[TOOL], instructions="Be brief.")).json()
        output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "forty-two"}
        second = (await send(app, [output], tools=[TOOL], previous_response_id=first["id"])).json()
        third = await send(app, "Again?", previous_response_id=second["id"])
    assert second["output"][0]["content"][0]["text"] == "It is 42."
    assert "What is 19 + 23?" in prompts[-1] and "It is 42." in prompts[-1]
    assert "Be brief." not in prompts[-1]
    assert third.status_code == 200


async def test_items_of_every_form_make_one_conversation() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "ok"

    items = [
        {"role": "developer", "content": "Be exact."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "apple"}, {"type": "input_text", "text": "banana"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "elder"}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1, "b": 2}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"a": 3, "b": 4}'},
        {"type": "function_call_output", "call_id": "c1", "output": "cherry"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "damson"}]},
        {"role": "user", "content": "and?"},
    ]
    with serving(reply) as app:
        response = await send(app, items, tools=[TOOL])
    assert response.status_code == 200, response.text
    places = [prompts[0].index(text) for text in ("apple", "banana", "elder", "cherry", "damson", "and?")]
    assert places == sorted(places)


async def test_what_is_remembered_is_bounded_and_can_be_shown_and_forgotten() -> None:
    with serving(["Hello."], max_stored_responses=2) as app:
        ids = [(await send(app)).json()["id"] for _ in range(3)]
        unstored = (await send(app, store=False)).json()["id"]
        forgotten = await send(app, previous_response_id=ids[0])
        async with client_of(app) as client:
            shown = await client.get(f"/v1/responses/{ids[2]}")
            unknown = await client.get(f"/v1/responses/{unstored}")
            deleted = await client.delete(f"/v1/responses/{ids[2]}")
            again = await client.delete(f"/v1/responses/{ids[2]}")
    assert forgotten.status_code == 404 and forgotten.json()["error"]["param"] == "previous_response_id"
    assert shown.json()["output"][0]["content"][0]["text"] == "Hello."
    assert unknown.status_code == again.status_code == 404 and deleted.json()["deleted"]


async def test_a_response_is_found_by_its_own_key_only() -> None:
    with serving(["Hello."], keys=["mine", "yours"]) as app:
        body = {"model": "default", "input": "hi"}
        first = await ask(app, "/v1/responses", body, authorization="Bearer mine")
        body["previous_response_id"] = first.json()["id"]
        other = await ask(app, "/v1/responses", body, authorization="Bearer yours")
    assert other.status_code == 404


BAD: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "colour"),
    ({"conversation": "c"}, "conversation"),
    ({"max_output_tokens": 0}, "max_output_tokens=0 must be at least 1"),
    ({"top_logprobs": 99}, "top_logprobs=99 must be"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort='high' needs"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"include": ["colours"]}, "include[0]='colours'"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "'x'"),
    ({"tool_choice": {"type": "mcp"}}, "'mcp'"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "objec"}}}}, "'objec'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
async def test_a_bad_request_is_named(options: dict[str, Any], message: str) -> None:
    with serving(["Hello."]) as app:
        response = await send(app, **options)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


async def test_log_probabilities_stand_beside_the_text() -> None:
    with serving(["Hi"]) as app:
        include = ["message.output_text.logprobs"]
        events = events_of(await send(app, stream=True, include=include, top_logprobs=1))
    part = events[-1]["response"]["output"][0]["content"][0]
    assert [entry["token"] for entry in part["logprobs"]][:2] == ["H", "i"]
