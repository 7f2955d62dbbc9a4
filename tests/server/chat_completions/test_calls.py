"""Calls in OpenAI's chat completions, as tools and as functions."""

import json
from typing import Any

import pytest

from tests.support.servers import (
    ADD,
    ADD_CALL,
    ADD_TOOL,
    ASK,
    chat,
    events_of,
    merged_chunks,
    scripted_engine,
    serving,
)

TWO_CALLS = f"""{ADD_CALL}
<tool_call>{{"name": "say", "arguments": {{"text": "a </tool_call> \\"b\\"\\n  c\\t"}}}}</tool_call>"""


SAY = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


SAY_TOOL = {"type": "function", "function": {"name": "say", "parameters": SAY}}


async def test_streamed_and_whole_calls_have_the_same_arguments_to_the_byte() -> None:
    options = {"tools": [ADD_TOOL, SAY_TOOL]}
    with serving([TWO_CALLS]) as app:
        whole = (await chat(app, **options)).json()["choices"][0]
        streamed = merged_chunks(events_of(await chat(app, stream=True, **options)))
    calls = [call["function"] for call in whole["message"]["tool_calls"]]
    assert [call["name"] for call in calls] == ["add", "say"]
    assert json.loads(calls[1]["arguments"]) == {"text": 'a </tool_call> "b"\n  c\t'}
    assert [(call["name"], call["arguments"]) for call in streamed["calls"].values()] == [
        (call["name"], call["arguments"]) for call in calls
    ]
    assert list(streamed["calls"]) == [0, 1]
    assert whole["finish_reason"] == streamed["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_a_forced_call_has_all_that_its_schema_asks_for(choice: Any) -> None:
    with serving(["I would rather not."]) as app:
        answer = (await chat(app, tools=[ADD_TOOL], tool_choice=choice, temperature=1, seed=3)).json()
    [call] = answer["choices"][0]["message"]["tool_calls"][:1]
    assert set(json.loads(call["function"]["arguments"])) == {"a", "b"}


async def test_allowed_tools_are_shown_all_and_called_in_part() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "say"}}]}
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return ADD_CALL

    with serving(reply) as app:
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        answer = (await chat(app, tools=[ADD_TOOL, SAY_TOOL], tool_choice=choice, max_tokens=200)).json()
    names = {call["function"]["name"] for call in answer["choices"][0]["message"]["tool_calls"]}
    assert names == {"say"} and '"add"' in prompts[0]


async def test_no_call_appears_where_none_may() -> None:
    with serving([ADD_CALL]) as app:
        message = (await chat(app, tools=[ADD_TOOL], tool_choice="none")).json()["choices"][0]["message"]
    assert "tool_calls" not in message


async def test_one_call_at_a_time_where_parallel_calls_are_switched_off() -> None:
    with serving([ADD_CALL + "\n" + ADD_CALL]) as app:
        both = (await chat(app, tools=[ADD_TOOL])).json()["choices"][0]["message"]["tool_calls"]
        one = (await chat(app, tools=[ADD_TOOL], parallel_tool_calls=False)).json()
    assert len(both) == 2 and len(one["choices"][0]["message"]["tool_calls"]) == 1


async def test_functions_are_answered_as_functions() -> None:
    with serving([ADD_CALL, "It is 42."]) as app:
        choice = (await chat(app, functions=[ADD], function_call="auto")).json()["choices"][0]
        streamed = events_of(await chat(app, functions=[ADD], stream=True))
        call = choice["message"]["function_call"]
        answered = [
            *ASK,
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "add", "content": "42"},
        ]
        after = (await chat(app, answered, functions=[ADD])).json()["choices"][0]
    assert choice["finish_reason"] == "function_call" and "tool_calls" not in choice["message"]
    assert json.loads(call["arguments"]) == {"a": 19, "b": 23}
    pieces = [chunk["choices"][0]["delta"].get("function_call") for chunk in streamed[:-1]]
    assert "".join(piece["arguments"] for piece in pieces if piece) == call["arguments"]
    assert after["message"]["content"] == "It is 42."


async def test_a_call_that_the_budget_cuts_is_completed_and_says_so() -> None:
    with serving([ADD_CALL.replace("19", "1" + "9" * 80)]) as app:
        options: dict[str, Any] = {"tools": [ADD_TOOL], "tool_choice": "required", "max_tokens": 80}
        whole = (await chat(app, **options)).json()["choices"][0]
        streamed = merged_chunks(events_of(await chat(app, stream=True, **options)))
    text = whole["message"]["tool_calls"][0]["function"]["arguments"]
    assert set(json.loads(text)) == {"a", "b"} and streamed["calls"][0]["arguments"] == text
    assert whole["finish_reason"] == streamed["finish_reason"] == "length"


async def test_results_of_tools_are_shown_also_as_parts() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "ok"

    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    turns = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "it is three"}]},
    ]
    with serving(reply) as app:
        assert (await chat(app, turns, tools=[ADD_TOOL])).status_code == 200
    assert "it is three" in prompts[0]


@pytest.mark.parametrize("arguments", ['{"a": 1,\n "b": 2}', {"a": 1, "b": 2}])
async def test_arguments_that_are_sent_back_as_a_text_or_an_object_reach_the_template(arguments: Any) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "ok"

    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    with serving(reply) as app:
        assert (await chat(app, [*ASK, *turns], tools=[ADD_TOOL])).status_code == 200
    assert '"a": 1' in prompts[0] and '"b": 2' in prompts[0]


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", [1], None])
async def test_broken_arguments_that_are_sent_back_are_named(arguments: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    with serving(["ok"]) as app:
        response = await chat(app, [*ASK, *turns], tools=[ADD_TOOL])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[1].tool_calls[0].function.arguments"


WRITE: dict[str, Any] = {
    "name": "write",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
}


FILE = 'def f():\n    return "a \\ b"\n\n  {"json": [1]}  '


BARE_CALL = (
    "<tool_call>\n<function=write>\n<parameter=path>\n007\n</parameter>\n"
    f"<parameter=text>\n{FILE}\n</parameter>\n</function>\n</tool_call>"
)


async def test_arguments_that_a_family_writes_bare_arrive_as_they_are() -> None:
    options: dict[str, Any] = {"tools": [{"type": "function", "function": WRITE}], "max_tokens": 400}
    with serving(scripted_engine([BARE_CALL, BARE_CALL], tool_format="qwen3_coder")) as app:
        whole = (await chat(app, **options)).json()["choices"][0]["message"]["tool_calls"][0]["function"]
        chunks = events_of(await chat(app, stream=True, **options))[:-1]
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert json.loads(whole["arguments"]) == {"path": "007", "text": FILE}
    assert "".join(piece["function"].get("arguments", "") for piece in pieces) == whole["arguments"]
