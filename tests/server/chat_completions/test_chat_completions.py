"""OpenAI's chat completions: what their clients read, streamed and whole."""

import json
from typing import Any
from unittest.mock import patch

import pytest

from tests.support.servers import (
    ADD,
    ADD_CALL,
    ADD_TOOL,
    ASK,
    breaking,
    chat,
    events_of,
    scripted_engine,
    serving,
    thinking_engine,
)

TWO_CALLS = f"""{ADD_CALL}
<tool_call>{{"name": "say", "arguments": {{"text": "a </tool_call> \\"b\\"\\n  c\\t"}}}}</tool_call>"""
SAY = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SAY_TOOL = {"type": "function", "function": {"name": "say", "parameters": SAY}}


def merged(chunks: list[Any], index: int = 0) -> dict[str, Any]:
    """What a client makes of the chunks of one choice."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "finish_reason": None}
    for chunk in chunks:
        for choice in chunk["choices"] if isinstance(chunk, dict) else ():
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for piece in delta.get("tool_calls", ()):
                call = message["calls"].setdefault(piece["index"], {"arguments": ""})
                call |= {key: piece[key] for key in ("id", "type") if key in piece}
                call["name"] = piece["function"].get("name", call.get("name"))
                call["arguments"] += piece["function"].get("arguments", "")
            message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
    return message


async def test_an_answer_is_told_whole() -> None:
    with serving(["Hello."]) as app:
        answer = (await chat(app)).json()
    assert answer["object"] == "chat.completion" and answer["model"] == "scripted"
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello.", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 7


async def test_a_stream_has_one_id_one_time_all_text_its_finish_reason_and_its_terminator() -> None:
    with serving(["Hello."]) as app:
        response = await chat(app, stream=True)
    *chunks, done = events_of(response)
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert merged(chunks)["content"] == "Hello."
    assert "no-transform" in response.headers["cache-control"] and response.headers["x-accel-buffering"] == "no"


async def test_usage_comes_on_the_chunk_that_was_asked_for_and_nowhere_else() -> None:
    with serving(["Hello."]) as app:
        without = events_of(await chat(app, stream=True))
        asked = events_of(await chat(app, stream=True, stream_options={"include_usage": True}))
    assert not any("usage" in chunk for chunk in without[:-1])
    assert [chunk["choices"] for chunk in asked[:-1] if "usage" in chunk] == [[]]
    assert asked[-2]["usage"]["completion_tokens"] == 7
    assert asked[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


async def test_streamed_and_whole_calls_have_the_same_arguments_to_the_byte() -> None:
    options = {"tools": [ADD_TOOL, SAY_TOOL]}
    with serving([TWO_CALLS]) as app:
        whole = (await chat(app, **options)).json()["choices"][0]
        streamed = merged(events_of(await chat(app, stream=True, **options)))
    calls = [call["function"] for call in whole["message"]["tool_calls"]]
    assert [call["name"] for call in calls] == ["add", "say"]
    assert json.loads(calls[1]["arguments"]) == {"text": 'a </tool_call> "b"\n  c\t'}
    assert [(call["name"], call["arguments"]) for call in streamed["calls"].values()] == [
        (call["name"], call["arguments"]) for call in calls
    ]
    assert list(streamed["calls"]) == [0, 1]
    assert whole["finish_reason"] == streamed["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None


async def test_an_answer_without_text_and_calls_has_an_empty_content() -> None:
    with serving([""]) as app:
        message = (await chat(app)).json()["choices"][0]["message"]
    assert message["content"] == "" and "tool_calls" not in message


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


async def test_an_answer_is_the_json_that_was_asked_for_and_any_object_where_no_schema_is() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with serving(['{"n": 7}']) as app:
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
        exact = (await chat(app, response_format=wanted)).json()["choices"][0]["message"]["content"]
        free = (await chat(app, response_format={"type": "json_object"})).json()["choices"][0]["message"]["content"]
    assert json.loads(exact) == json.loads(free) == {"n": 7}


@pytest.mark.parametrize(
    ("constraint", "text"),
    [({"regex": "[0-9]{3}"}, "123"), ({"choice": ["yes", "no"]}, "no"), ({"grammar": 'root ::= "a" "b"'}, "ab")],
)
async def test_structured_outputs_constrain_an_answer(constraint: dict[str, Any], text: str) -> None:
    with serving([text + " and more"]) as app:
        answer = (await chat(app, structured_outputs=constraint)).json()
    assert answer["choices"][0]["message"]["content"] == text


async def test_structured_outputs_take_any_schema() -> None:
    with serving(["17 and more"]) as app:
        text = (await chat(app, structured_outputs={"json": {}})).json()["choices"][0]["message"]["content"]
    assert json.loads(text) == 17


async def test_structured_outputs_take_a_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with serving(['{"n": 7} and more']) as app:
        answer = (await chat(app, structured_outputs={"json": schema})).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"n": 7}


async def test_several_answers_come_side_by_side_and_share_one_prompt() -> None:
    with serving(["Hello."]) as app:
        whole = (await chat(app, n=3)).json()
        streamed = events_of(await chat(app, n=3, stream=True, stream_options={"include_usage": True}))
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["Hello."] * 3
    assert [merged(streamed, index)["content"] for index in range(3)] == ["Hello."] * 3
    assert whole["usage"]["completion_tokens"] == streamed[-2]["usage"]["completion_tokens"] == 21
    assert whole["usage"]["prompt_tokens"] == streamed[-2]["usage"]["prompt_tokens"]


async def test_log_probabilities_are_the_same_streamed_and_whole() -> None:
    options = {"logprobs": True, "top_logprobs": 2}
    with serving(["Hi"]) as app:
        whole = (await chat(app, **options)).json()["choices"][0]["logprobs"]["content"]
        chunks = events_of(await chat(app, stream=True, **options))[:-1]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    streamed = [entry for piece in pieces if piece for entry in piece["content"]]
    assert streamed == whole
    assert [entry["token"] for entry in whole][:2] == ["H", "i"]
    assert all(len(entry["top_logprobs"]) == 2 and entry["bytes"] is not None for entry in whole)


async def test_what_was_thought_has_one_name_and_is_no_part_of_the_answer() -> None:
    with serving(thinking_engine("<think>Three cubed.</think>27.")) as app:
        message = (await chat(app)).json()["choices"][0]["message"]
        chunks = events_of(await chat(app, stream=True))
    streamed = merged(chunks)
    names = {name for chunk in chunks[:-1] for name in chunk["choices"][0]["delta"]}
    assert names == {"role", "content", "reasoning_content"}
    assert message == {
        "role": "assistant",
        "content": "27.",
        "refusal": None,
        "reasoning_content": "Three cubed.",
    }
    assert (streamed["reasoning_content"], streamed["content"]) == ("Three cubed.", "27.")


@pytest.mark.parametrize(
    ("reply", "options"),
    [
        ("The end is EN", {"stop": ["END"]}),  # held back, since a stop text might have begun
        ('So <tool_call>{"name": "ad', {}),
        ("1 < 2 <tool_c", {"tools": [ADD_TOOL]}),
    ],
)
async def test_what_was_held_back_is_shown_at_the_end(reply: str, options: dict[str, Any]) -> None:
    with serving([reply]) as app:
        whole = (await chat(app, **options)).json()["choices"][0]
        *chunks, last, done = events_of(await chat(app, stream=True, **options))
    assert merged([*chunks, last])["content"] == whole["message"]["content"] == reply
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert done == "[DONE]"


async def test_a_call_that_the_budget_cuts_is_completed_and_says_so() -> None:
    with serving([ADD_CALL.replace("19", "1" + "9" * 80)]) as app:
        options: dict[str, Any] = {"tools": [ADD_TOOL], "tool_choice": "required", "max_tokens": 80}
        whole = (await chat(app, **options)).json()["choices"][0]
        streamed = merged(events_of(await chat(app, stream=True, **options)))
    text = whole["message"]["tool_calls"][0]["function"]["arguments"]
    assert set(json.loads(text)) == {"a", "b"} and streamed["calls"][0]["arguments"] == text
    assert whole["finish_reason"] == streamed["finish_reason"] == "length"


async def test_a_stop_text_ends_the_answer_and_not_what_was_thought() -> None:
    with serving(thinking_engine("<think>One. Two.</think>Three. Four.")) as app:
        message = (await chat(app, stop=["."])).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("One. Two.", "Three")


async def test_thinking_that_takes_the_whole_budget_says_so() -> None:
    with serving(thinking_engine("<think>Hm, let me see. And again.</think>Yes.")) as app:
        answer = (await chat(app, max_tokens=12)).json()
        streamed = merged(events_of(await chat(app, max_tokens=12, stream=True)))
    choice = answer["choices"][0]
    assert choice["finish_reason"] == streamed["finish_reason"] == "length"
    assert choice["message"]["content"] == "" and choice["message"]["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12
    assert streamed["reasoning_content"] == choice["message"]["reasoning_content"]


async def test_a_stream_that_fails_ends_with_an_error_and_its_terminator() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        *chunks, error, done = events_of(await chat(app, stream=True))
    assert merged(chunks)["content"]
    assert error["error"]["type"] == "server_error" and "the model broke" in error["error"]["message"]
    assert done == "[DONE]"


async def test_an_answer_that_fails_is_a_500() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        response = await chat(app)
    assert response.status_code == 500 and response.json()["error"]["code"] == "engine_error"


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


async def test_what_the_request_says_of_length_is_one_of_two_names() -> None:
    with serving(["Hello, world."]) as app:
        answers = [(await chat(app, **{name: 3})).json() for name in ("max_tokens", "max_completion_tokens")]
        both = await chat(app, max_tokens=3, max_completion_tokens=3)
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["Hel", "Hel"]
    assert answers[0]["choices"][0]["finish_reason"] == "length"
    assert both.status_code == 400


async def test_a_reply_without_a_length_may_be_half_of_what_fits_and_asks_for_no_statistics() -> None:
    engine = scripted_engine(["x" * 400], kv_cache_tokens=512)
    with patch.object(engine, "stats", side_effect=AssertionError("a snapshot for one number")), serving(engine) as app:
        usage = (await chat(app)).json()["usage"]
    assert usage["completion_tokens"] == engine.max_request_tokens // 2 == 256


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
