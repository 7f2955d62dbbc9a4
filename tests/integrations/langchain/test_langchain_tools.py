"""Tools and structured output of ChatMLXAgent: what is called, what it is worth, and what was cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import ModelInvalidRequestError, OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import BaseModel

from langchain_mlx_agent import ChatMLXAgent
from langchain_mlx_agent.answers import AnswerReader, breaking
from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.structured import StructuredOutputParser, json_schema_of, response_format_of
from langchain_mlx_agent.tools import openai_tool
from mlx_agent_llm import (
    ChatDelta,
    Engine,
    InvalidOutputError,
    InvalidToolCall,
    RequestError,
    Timings,
    ToolChoiceError,
    Usage,
)
from mlx_agent_llm.chat import ToolCallDelta
from mlx_agent_llm.testing import ScriptedModel
from tests.support.langchain_chats import ADD, CONFIG, Person, PersonDict, PersonV1, add, merged, now, scripted
from tests.support.search import examples
from tests.support.tool_templates import THINKING, TemplateTokenizer


@pytest.mark.parametrize(
    ("tool_choice", "names"),
    [
        (None, []),
        (False, []),
        ("auto", []),
        ("none", []),
        ("any", ["add"]),
        ("required", ["add"]),
        (True, ["add"]),
        ("now", ["now"]),
        ({"type": "function", "function": {"name": "now"}}, ["now"]),
    ],
)
def test_tool_choice_decides_whether_and_what_is_called(tool_choice: Any, names: list[str]) -> None:
    replies = {"add": ADD, "now": '<tool_call>{"name": "now", "arguments": {}}</tool_call>'}
    with scripted([replies[names[0]] if names else "No call."]) as chat:
        message = chat.bind_tools([add, now], tool_choice=tool_choice).invoke("Hi")
    assert [call["name"] for call in message.tool_calls] == names


@pytest.mark.parametrize(("tool_choice", "names"), [("none", []), ("any", ["add"]), ("now", ["now"])])
def test_tool_choice_binds_a_model_that_wants_something_else(tool_choice: str, names: list[str]) -> None:
    wish = "No call." if tool_choice == "any" else ADD
    with scripted([wish], max_tokens=60 if names == ["now"] else 400) as chat:
        message = chat.bind_tools([add, now], tool_choice=tool_choice, parallel_tool_calls=False).invoke("Hi")
    assert [call["name"] for call in message.tool_calls] == names


def test_a_random_model_that_must_call_calls_validly_and_one_that_must_not_does_not(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=200)
    for seed in range(5):
        forced = chat.bind_tools([Person], tool_choice="any", parallel_tool_calls=False).invoke("Hi", seed=seed)
        assert len(forced.tool_calls) == 1
        Person.model_validate(forced.tool_calls[0]["args"])
        free = chat.bind_tools([Person], tool_choice="none").invoke("Hi", seed=seed)
        assert not free.tool_calls and not free.invalid_tool_calls


def test_a_stop_text_ends_the_text_before_a_call_and_never_a_call() -> None:
    with scripted(["Sure. " + ADD]) as chat:
        bound: Any = chat.bind_tools([add])
        for stop in ("23", "tool_call", '"'):
            message = bound.invoke("Hi", stop=[stop])
            assert merged(list(bound.stream("Hi", stop=[stop]))).tool_calls[0]["args"] == {"a": 19, "b": 23}
            assert (message.content, message.tool_calls[0]["args"]) == ("Sure.", {"a": 19, "b": 23})
        assert (bound.invoke("Hi", stop=["ure"]).content, bound.invoke("Hi", stop=["ure"]).tool_calls) == ("S", [])


def test_parallel_calls_can_be_forbidden() -> None:
    with scripted([ADD + "\n" + ADD]) as chat:
        assert len(chat.bind_tools([add]).invoke("Hi").tool_calls) == 2
        assert len(chat.bind_tools([add], parallel_tool_calls=False).invoke("Hi").tool_calls) == 1


def test_tools_and_choices_that_make_no_sense_are_refused() -> None:
    with scripted(["Hi."]) as chat:
        with pytest.raises(ToolChoiceError, match=r"tool_choice='sub' .* known tools: 'add'"):
            chat.bind_tools([add], tool_choice="sub")
        with pytest.raises(ToolChoiceError, match="needs tools"):
            chat.bind_tools([], tool_choice="any")
        with pytest.raises(ToolChoiceError, match=r"tools\[1\].name='add' is declared twice"):
            chat.bind_tools([add, add]).invoke("Hi")
        with pytest.raises(RequestError, match=r"unknown option 'tempreature'; known: .*temperature"):
            chat.bind_tools([add], tempreature=1).invoke("Hi")
        assert chat.bind_tools([]).invoke("Hi").content == "Hi."


async def test_a_call_that_max_tokens_would_cut_off_is_closed_in_time_and_says_so() -> None:
    wordy = '<tool_call>{"name": "Note", "arguments": {"text": "' + "x" * 400
    with scripted([wordy], max_tokens=80) as chat:
        bound: Any = chat.bind_tools([Note])
        for answer in (bound.invoke("Hi"), await bound.ainvoke("Hi"), merged(list(bound.stream("Hi")))):
            [call] = answer.tool_calls
            assert set(call["args"]["text"]) == {"x"} and not answer.invalid_tool_calls
            assert answer.response_metadata["finish_reason"] == "length" and answer.response_metadata["forced_close"]
            assert answer.usage_metadata["output_tokens"] <= 80


class Note(BaseModel):
    text: str


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=examples(100))
@given(st.data())
def test_no_beginning_of_a_call_is_repaired_into_a_valid_call(data: st.DataObject) -> None:
    text = json.dumps(data.draw(st.dictionaries(st.text(), JSON)), ensure_ascii=data.draw(st.booleans()))
    begun = text[: data.draw(st.integers(0, len(text)))]
    deltas = cut_off(begun)
    reader = AnswerReader("m", [])
    streamed: Any = merged([chunk.message for delta in deltas if (chunk := reader.chunk(delta))])  # type: ignore[misc]
    assert not streamed.tool_calls and len(streamed.invalid_tool_calls) == 1
    whole = AnswerReader("m", []).message(deltas)
    assert not whole.tool_calls and whole.invalid_tool_calls == [
        {"type": "invalid_tool_call", "name": "f", "args": begun, "id": "call_1", "error": "cut off"}
    ]
    assert breaking(begun)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize(
    "schema", [Person, PersonV1, PersonDict, Person.model_json_schema()], ids=["pydantic", "v1", "typed", "dict"]
)
def test_structured_output_of_a_random_model_always_fits_its_schema(
    random_engine: Engine, schema: Any, method: Literal["json_schema", "function_calling"]
) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=6000)
    structured = chat.with_structured_output(schema, method=method, strict=True)
    for answer in structured.batch(["Hi"] * 2):
        value = answer if isinstance(answer, dict) else vars(answer)
        assert set(value) == ({"name", "age"} if schema in (PersonDict, PersonV1) else {"name", "age", "mood"})
        assert isinstance(answer, schema if schema in (Person, PersonV1) else dict)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()], ids=["pydantic", "dict"])
async def test_structured_output_is_the_same_value_whichever_way_it_is_asked_for(schema: Any, method: Any) -> None:
    text = '{"name": "Ann", "age": 3, "mood": "bad"}'
    reply = (
        f'<tool_call>{{"name": "Person", "arguments": {text}}}</tool_call>' if method == "function_calling" else text
    )
    value = {"name": "Ann", "age": 3, "mood": "bad"} if isinstance(schema, dict) else Person.model_validate_json(text)
    with scripted([reply]) as chat:
        plain = chat.with_structured_output(schema, method=method)
        with_raw = chat.with_structured_output(schema, method=method, include_raw=True)
        answers = [plain.invoke("Hi"), await plain.ainvoke("Hi"), *plain.batch(["Hi"]), *await plain.abatch(["Hi"])]
        streams = [[*plain.stream("Hi")], [one async for one in plain.astream("Hi")]]
        assert answers == [value] * 4 and [stream[-1] for stream in streams] == [value] * 2
        for stream in streams:
            assert stream == [value] if schema is Person else len(stream) > 3 and {"name": "A"} in stream
        for answer in (with_raw.invoke("Hi"), await with_raw.ainvoke("Hi")):
            assert isinstance(answer["raw"], AIMessage)
            assert answer == {"raw": answer["raw"], "parsed": value, "parsing_error": None}
        for pieces in ([*with_raw.stream("Hi")], [one async for one in with_raw.astream("Hi")]):
            assert pieces[-1] == {"parsed": value, "parsing_error": None}
            assert isinstance(merged([piece["raw"] for piece in pieces if "raw" in piece]), AIMessage)
            assert len([piece for piece in pieces if "parsed" in piece]) >= (2 if schema is Person else 4)


def test_structured_output_is_complete_also_when_max_tokens_ends_it() -> None:
    with scripted(['{"text": "' + "x" * 400 + '"}'], max_tokens=40) as chat:
        for method in ("json_schema", "json_mode"):
            note = chat.with_structured_output(Note, method=method).invoke("Hi")
            assert set(note.text) == {"x"}
        with pytest.raises(ModelInvalidRequestError, match="max_tokens=40 must be at least"):
            chat.with_structured_output(Note, method="function_calling").invoke("Hi")


def test_structured_output_that_was_cut_off_or_does_not_fit_is_never_repaired() -> None:
    parser = StructuredOutputParser(target=Note)
    cut = AIMessage('{"text": "x"}', response_metadata={"finish_reason": "length", "forced_close": False})
    with pytest.raises(OutputParserException, match="max_tokens ended inside the answer"):
        parser.invoke(cut)
    with scripted(['{"name": "Ann", "age": -3}']) as chat:
        for schema in (Person, Person.model_json_schema()):
            with pytest.raises(OutputParserException, match="does not fit the schema"):
                chat.with_structured_output(schema, method="json_mode").invoke("Hi")
        answer = chat.with_structured_output(Person, method="json_mode", include_raw=True).invoke("Hi")
        assert answer["parsed"] is None and isinstance(answer["parsing_error"], OutputParserException)
        assert isinstance(answer["raw"], AIMessage) and answer["raw"].text.startswith('{"name"')


def test_strict_decides_whether_what_cannot_be_enforced_is_refused_or_checked() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "contains": {"type": "integer"}}
    schema = {"title": "Set", "type": "object", "properties": {"numbers": numbers}, "required": ["numbers"]}
    for reply, fits in (('{"numbers": [1, 2]}', True), ('{"numbers": [1, 1]}', False)):
        with scripted([reply]) as chat:
            for strict in (None, True):
                with pytest.raises(ModelInvalidRequestError, match="uniqueItems"):
                    chat.with_structured_output(schema, strict=strict).invoke("Hi")
            checked = chat.with_structured_output(schema, strict=False)
            if fits:
                assert checked.invoke("Hi") == {"numbers": [1, 2]}
            else:
                with pytest.raises(InvalidOutputError, match=r"numbers: \[1, 1\] has non-unique elements"):
                    checked.invoke("Hi")


def test_what_is_only_checked_is_checked_after_reasoning_too() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "contains": {"type": "integer"}}
    schema = {"title": "Set", "type": "object", "properties": {"numbers": numbers}, "required": ["numbers"]}
    model = ScriptedModel(lambda prompt: '<think>Hm.</think>{"numbers": [1, 1]}')
    with Engine.from_parts(model, TemplateTokenizer(THINKING), CONFIG) as engine:
        checked = ChatMLXAgent(engine=engine).with_structured_output(schema, strict=False)
        with pytest.raises(InvalidOutputError, match=r"numbers: \[1, 1\] has non-unique elements"):
            checked.invoke("Hi")


def test_an_answer_that_no_grammar_wrote_is_checked_for_its_formats() -> None:
    day = {"title": "Day", "type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
    with scripted(['{"day": "tomorrow"}']) as chat:
        with pytest.raises(OutputParserException, match=r"\$\.day: 'tomorrow' is not a 'date'"):
            chat.with_structured_output(day, method="json_mode").invoke("Hi")


def test_schemas_of_every_kind_become_json_schemas() -> None:
    assert json_schema_of(Person) == Person.model_json_schema()
    assert json_schema_of({"type": "integer"}) == {"type": "integer"}
    assert json_schema_of(PersonDict)["required"] == ["name", "age"]
    function = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    assert json_schema_of(function)["properties"] == {"x": {"type": "integer"}}
    assert openai_tool(PersonDict)["function"]["parameters"]["required"] == ["name", "age"]
    openai = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    assert response_format_of(openai) == openai and response_format_of(None) is None
    assert response_format_of(Person, strict=True) == {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema(), "strict": True},
    }
    with pytest.raises(RequestError, match="response_format=3 must be"):
        response_format_of(3)


def test_the_model_is_told_of_its_tools_and_of_what_they_answered() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}
    history = [HumanMessage("1 + 2?"), AIMessage("", tool_calls=[call]), ToolMessage("It is three", tool_call_id="c1")]
    with scripted(reply) as chat:
        chat.bind_tools([add]).invoke(history)
    assert "Add two integers." in prompts[0] and "It is three" in prompts[0] and '"a": 1' in prompts[0]


async def test_identical_parallel_calls_all_count_and_have_ids_of_their_own() -> None:
    with scripted(["\n".join([ADD] * 3)]) as chat:
        bound: Any = chat.bind_tools([add])
        messages = [bound.invoke("Hi"), await bound.ainvoke("Hi"), merged(list(bound.stream("Hi")))]
    calls = [call for message in messages for call in message.tool_calls]
    assert [call["args"] for call in calls] == [{"a": 19, "b": 23}] * 9
    assert len({call["id"] for call in calls}) == 9


def test_no_way_to_stream_repairs_a_call_that_was_cut_off() -> None:
    chat = Broken(model="m", output_version="v1")
    answers: list[Any] = [merged(list(chat.stream("Hi"))), chat.stream_events("Hi", version="v3").output]
    for answer in answers:
        assert not answer.tool_calls and len(answer.invalid_tool_calls) == 1
        assert "tool_call" not in [block["type"] for block in answer.content_blocks]
        [entry] = as_dicts([answer])
        assert "".join(entry["content"]) == "Well. "
        [broken] = entry["invalid_tool_calls"]
        assert broken["id"] == "call_1" and broken["text"].startswith('{"name": "f", "arguments": {"a": 1')


class Broken(ChatMLXAgent):
    """Begins a call and does not end it, as a model without a grammar might."""

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        reader = AnswerReader("m", [])
        for delta in (ChatDelta(text="Well. "), *cut_off('{"a": 1')):
            if (chunk := reader.chunk(delta)) is not None:
                yield chunk


def cut_off(arguments: str) -> list[ChatDelta]:
    return [
        ChatDelta(tool_call=ToolCallDelta(0, "call_1", "f")),
        ChatDelta(tool_call=ToolCallDelta(0, arguments=arguments)),
        ChatDelta(finished_call=InvalidToolCall("call_1", f'{{"name": "f", "arguments": {arguments}', "cut off")),
        ChatDelta(finish_reason="length", usage=Usage(), timings=Timings()),
    ]
