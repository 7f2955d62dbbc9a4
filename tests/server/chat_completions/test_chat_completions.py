"""OpenAI's chat completions: what their clients read, streamed and whole."""

import json
from typing import Any
from unittest.mock import patch

import pytest

from tests.support.servers import (
    ADD_TOOL,
    breaking,
    chat,
    events_of,
    merged_chunks,
    scripted_engine,
    serving,
    thinking_engine,
)


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
    assert merged_chunks(chunks)["content"] == "Hello."
    assert "no-transform" in response.headers["cache-control"] and response.headers["x-accel-buffering"] == "no"


async def test_usage_comes_on_the_chunk_that_was_asked_for_and_nowhere_else() -> None:
    with serving(["Hello."]) as app:
        without = events_of(await chat(app, stream=True))
        asked = events_of(await chat(app, stream=True, stream_options={"include_usage": True}))
    assert not any("usage" in chunk for chunk in without[:-1])
    assert [chunk["choices"] for chunk in asked[:-1] if "usage" in chunk] == [[]]
    assert asked[-2]["usage"]["completion_tokens"] == 7
    assert asked[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


async def test_an_answer_without_text_and_calls_has_an_empty_content() -> None:
    with serving([""]) as app:
        message = (await chat(app)).json()["choices"][0]["message"]
    assert message["content"] == "" and "tool_calls" not in message


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
    assert [merged_chunks(streamed, index)["content"] for index in range(3)] == ["Hello."] * 3
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
    streamed = merged_chunks(chunks)
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
    assert merged_chunks([*chunks, last])["content"] == whole["message"]["content"] == reply
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert done == "[DONE]"


async def test_a_stop_text_ends_the_answer_and_not_what_was_thought() -> None:
    with serving(thinking_engine("<think>One. Two.</think>Three. Four.")) as app:
        message = (await chat(app, stop=["."])).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("One. Two.", "Three")


async def test_thinking_that_takes_the_whole_budget_says_so() -> None:
    with serving(thinking_engine("<think>Hm, let me see. And again.</think>Yes.")) as app:
        answer = (await chat(app, max_tokens=12)).json()
        streamed = merged_chunks(events_of(await chat(app, max_tokens=12, stream=True)))
    choice = answer["choices"][0]
    assert choice["finish_reason"] == streamed["finish_reason"] == "length"
    assert choice["message"]["content"] == "" and choice["message"]["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12
    assert streamed["reasoning_content"] == choice["message"]["reasoning_content"]


async def test_a_stream_that_fails_ends_with_an_error_and_its_terminator() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        *chunks, error, done = events_of(await chat(app, stream=True))
    assert merged_chunks(chunks)["content"]
    assert error["error"]["type"] == "server_error" and "the model broke" in error["error"]["message"]
    assert done == "[DONE]"


async def test_an_answer_that_fails_is_a_500() -> None:
    with serving(breaking("Hello, world.", after=6)) as app:
        response = await chat(app)
    assert response.status_code == 500 and response.json()["error"]["code"] == "engine_error"


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
