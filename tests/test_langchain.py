"""ChatMLXAgent through the real engine and grammar, with scripted and random models."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ContextOverflowError, OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from pydantic import BaseModel, Field, ValidationError

from langchain_mlx_agent import ChatMLXAgent, EngineRegistry
from langchain_mlx_agent.chunks import ChunkWriter, breaking
from langchain_mlx_agent.engines import EngineHolder
from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.structured import json_schema_of, response_format_of, tool_of
from mlx_agent_llm import (
    ChatDelta,
    ContextLengthError,
    Engine,
    EngineClosedError,
    EngineConfig,
    InvalidToolCall,
    ModelLoadError,
    RequestError,
    RequestTimeout,
    Timings,
    ToolChoiceError,
    Usage,
)
from mlx_agent_llm.chat import ToolCallDelta
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel

CONFIG = EngineConfig(kv_cache_tokens=16384, max_num_seqs=16, device="cpu")
ADD = '<tool_call>{"name": "add", "arguments": {"a": 19, "b": 23}}</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@tool
def now() -> str:
    """Tell the time."""
    return "noon"


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=150)
    mood: Literal["good", "bad"]


class PersonDict(TypedDict):
    name: str
    age: int


@contextmanager
def scripted(replies: Sequence[str] | Callable[[str], str], **parameters: Any) -> Iterator[ChatMLXAgent]:
    model = ScriptedModel(replies)
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield ChatMLXAgent(engine=engine, **parameters)


@pytest.fixture(scope="module")
def random_engine() -> Iterator[Engine]:
    model = RandomLogitsModel()
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield engine


def engine_of(chat: ChatMLXAgent) -> Engine:
    assert chat.engine is not None
    return chat.engine


def wait_until_no_block_is_used(engine: Engine) -> None:
    deadline = time.monotonic() + 5
    while engine.stats().num_used_blocks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.stats().num_used_blocks == 0


def merged(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def said(message: AIMessage) -> tuple[Any, ...]:
    """What a message says, without the ids that every answer has of its own."""
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    metadata = {key: value for key, value in message.response_metadata.items() if key != "timings"}
    assert message.usage_metadata is not None
    return message.content, calls, metadata, message.usage_metadata["output_tokens"]


# ---- answers


def test_an_agent_calls_its_tool_reads_the_result_and_answers() -> None:
    with scripted([ADD, "It is 42."]) as chat:
        agent = create_agent(chat, [add, now])
        messages = agent.invoke({"messages": [HumanMessage("What is 19 + 23?")]})["messages"]
    assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert [(call["name"], call["args"]) for call in messages[1].tool_calls] == [("add", {"a": 19, "b": 23})]
    assert messages[2].content == "42" and messages[2].tool_call_id == messages[1].tool_calls[0]["id"]
    assert messages[3].content == "It is 42."
    assert messages[1].response_metadata["finish_reason"] == "tool_calls"
    assert messages[3].usage_metadata["input_token_details"]["cache_read"] > 0


def test_an_agent_with_a_response_format_may_call_tools_and_then_answers_in_json() -> None:
    with scripted([ADD, '{"name": "Ann", "age": 42, "mood": "good"}']) as chat:
        agent = create_agent(chat, [add], response_format=Person)
        state = agent.invoke({"messages": [HumanMessage("Who?")]})
    assert state["structured_response"] == Person(name="Ann", age=42, mood="good")


def test_an_answer_has_usage_and_metadata() -> None:
    with scripted(["Hi."], max_tokens=9) as chat:
        message = chat.invoke("Hello")
        assert message.content == "Hi."
        assert message.usage_metadata == {
            "input_tokens": chat.get_num_tokens_from_messages([HumanMessage("Hello")]),
            "output_tokens": 4,
            "total_tokens": chat.get_num_tokens_from_messages([HumanMessage("Hello")]) + 4,
            "input_token_details": {"cache_read": 0},
            "output_token_details": {"reasoning": 0},
        }
        metadata = message.response_metadata
        assert (
            metadata["model_name"] == chat.model and metadata["model_provider"] == chat._get_ls_params()["ls_provider"]
        )
        assert metadata["finish_reason"] == "stop" and metadata["timings"]["total"] > 0


@pytest.mark.parametrize("reply", ["Hello, wörld.", "Let me see. " + ADD, ADD + "\n" + ADD.replace("19", "1")])
async def test_stream_astream_and_ainvoke_give_what_invoke_gives(reply: str) -> None:
    with scripted([reply]) as chat:
        bound: Any = chat.bind_tools([add])
        expected = said(bound.invoke("Hi"))
        assert said(merged([chunk for chunk in bound.stream("Hi")])) == expected
        assert said(merged([chunk async for chunk in bound.astream("Hi")])) == expected
        assert said(await bound.ainvoke("Hi")) == expected
        assert said(await chat.bind_tools([add]).bind(stream=True).ainvoke("Hi")) == expected


def test_a_streamed_call_has_name_and_id_first_then_pieces_of_its_arguments_and_usage_once_at_the_end() -> None:
    with scripted([ADD + "\n" + ADD]) as chat:
        bound: Any = chat.bind_tools([add])
        chunks: list[AIMessageChunk] = list(bound.stream("Hi"))
    pieces = [chunk.tool_call_chunks[0] for chunk in chunks if chunk.tool_call_chunks]
    for index in (0, 1):
        first, *others = [piece for piece in pieces if piece["index"] == index]
        assert first["name"] == "add" and first["id"] and first["args"] == ""
        assert len(others) > 3 and all(piece["name"] is None and piece["id"] is None for piece in others)
        assert json.loads("".join(piece["args"] or "" for piece in others)) == {"a": 19, "b": 23}
    assert [chunk.chunk_position for chunk in chunks if chunk.chunk_position] == ["last"]
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({call["id"] for call in merged(chunks).tool_calls}) == 2


def test_standard_content_blocks_are_the_same_streamed_and_whole() -> None:
    with scripted(["Let me see. " + ADD + "\n" + ADD], output_version="v1") as chat:
        bound: Any = chat.bind_tools([add])
        whole, streamed = bound.invoke("Hi"), merged(list(bound.stream("Hi")))
    answers: list[Any] = [whole, streamed]
    for message in answers:
        assert [block["type"] for block in message.content] == ["text", "tool_call", "tool_call"]
        assert [block.get("args") for block in message.content] == [None, *[{"a": 19, "b": 23}] * 2]


def test_events_of_version_3_carry_the_whole_answer() -> None:
    with scripted([ADD]) as chat:
        bound: Any = chat.bind_tools([add])
        output = bound.stream_events("Hi", version="v3").output
    assert [(call["name"], call["args"]) for call in output.tool_calls] == [("add", {"a": 19, "b": 23})]


def test_closing_a_stream_early_frees_its_blocks() -> None:
    with scripted(["x" * 4000], max_tokens=4000) as chat:
        stream = chat.stream("Hi")
        assert isinstance(next(stream), AIMessageChunk)
        assert engine_of(chat).stats().num_used_blocks > 0
        stream.close()  # type: ignore[attr-defined]
        wait_until_no_block_is_used(engine_of(chat))


async def test_closing_an_async_stream_or_cancelling_its_task_frees_its_blocks() -> None:
    with scripted(["x" * 4000], max_tokens=4000) as chat:
        stream: AsyncIterator[AIMessageChunk] = chat.astream("Hi")
        async with aclosing(stream):  # type: ignore[type-var]
            assert isinstance(await anext(stream), AIMessageChunk)
        await asyncio.to_thread(wait_until_no_block_is_used, engine_of(chat))
        task = asyncio.create_task(chat.ainvoke("Hi"))
        while not engine_of(chat).stats().num_used_blocks:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until_no_block_is_used, engine_of(chat))


# ---- many at once


async def test_batch_abatch_and_generate_reach_the_engine_together() -> None:
    questions: list[LanguageModelInput] = [f"Question {index}" for index in range(12)]

    def reply(prompt: str) -> str:
        return f"Answer {prompt.split('Question ')[1].split('<')[0]}" + "." * 200

    def answer(index: int) -> str:
        return f"Answer {index}" + "." * 200

    expected = [answer(index) for index in range(12)]
    for way in ("batch", "abatch", "generate"):
        with scripted(reply) as chat:
            if way == "batch":
                answers = [message.content for message in chat.bind(seed=1).batch(questions)]
            elif way == "abatch":
                answers = [message.content for message in await chat.abatch(questions)]
            else:
                result = chat.generate([[HumanMessage(str(question))] for question in questions])
                answers = [generations[0].text for generations in result.generations]
                assert result.run is not None and len({run.run_id for run in result.run}) == 12
            assert answers == expected
            assert engine_of(chat).stats().max_batch_size == 12


def test_max_concurrency_is_honoured_and_failures_can_be_returned() -> None:
    with scripted(["Hi." * 50]) as chat:
        chat.batch(["a", "b", "c", "d"], {"max_concurrency": 1})
        assert engine_of(chat).stats().max_batch_size == 1
        good, bad = chat.batch(["a", [("human", "x" * 9000)]], return_exceptions=True)
        assert isinstance(good, AIMessage) and isinstance(bad, ContextLengthError)
        assert chat.batch([]) == []


def test_the_second_turn_finds_the_first_in_the_cache() -> None:
    with scripted(["One.", "Two."]) as chat:
        history: list[BaseMessage] = [SystemMessage("Be brief. " * 10), HumanMessage("First?")]
        first = chat.invoke(history)
        second = chat.invoke([*history, first, HumanMessage("Second?")])
    assert second.content == "Two."
    assert second.usage_metadata is not None and first.usage_metadata is not None
    cached = second.usage_metadata["input_token_details"]["cache_read"]
    assert cached >= first.usage_metadata["input_tokens"] // 16 * 16 > 0


# ---- tools


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


async def test_a_call_that_max_tokens_cuts_off_is_invalid_and_says_why() -> None:
    with scripted([ADD], max_tokens=60) as chat:
        bound: Any = chat.bind_tools([add])
        message, streamed = bound.invoke("Hi"), merged(list(bound.stream("Hi")))
        awaited = await bound.ainvoke("Hi")
    for answer in (message, awaited):
        (call,) = answer.invalid_tool_calls
        assert (call["name"], call["args"]) == ("add", '{"a": 19, "b": 23}'[: 60 - ADD.index('{"a"')])
        assert call["id"] and "token budget" in str(call["error"])
    for answer in (message, awaited, streamed):
        assert not answer.tool_calls and len(answer.invalid_tool_calls) == 1
        assert answer.response_metadata["finish_reason"] == "length"
    assert streamed.invalid_tool_calls[0]["name"] == "add" and streamed.invalid_tool_calls[0]["id"]


def test_a_call_that_is_cut_off_before_its_name_is_invalid_too() -> None:
    with scripted([ADD], max_tokens=20) as chat:
        (call,) = chat.bind_tools([add]).invoke("Hi").invalid_tool_calls
    assert call["args"] == ADD[:20] and call["id"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_beginning_of_a_call_is_repaired_into_a_valid_call(data: st.DataObject) -> None:
    text = json.dumps(data.draw(st.dictionaries(st.text(), JSON)), ensure_ascii=data.draw(st.booleans()))
    begun = text[: data.draw(st.integers(0, len(text)))]
    writer, chunks = ChunkWriter("m"), []
    end = ChatDelta(finish_reason="length", usage=Usage(), timings=Timings())
    for delta in (
        ChatDelta(tool_call=ToolCallDelta(0, "call_1", "f")),
        ChatDelta(tool_call=ToolCallDelta(0, arguments=begun)),
        ChatDelta(finished_call=InvalidToolCall("call_1", f'{{"name": "f", "arguments": {begun}', "cut off")),
        end,
    ):
        chunks += writer.write(delta)
    streamed = merged([chunk.message for chunk in chunks])  # type: ignore[misc]
    assert not streamed.tool_calls and len(streamed.invalid_tool_calls) == 1
    (generation,) = writer.result(chunks).generations
    assert isinstance(generation.message, AIMessage) and not generation.message.tool_calls
    assert generation.message.invalid_tool_calls == [
        {"type": "invalid_tool_call", "name": "f", "args": begun, "id": "call_1", "error": "cut off"}
    ]
    assert breaking(begun)


# ---- structured output


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Person, PersonDict, Person.model_json_schema()], ids=["pydantic", "typed", "dict"])
def test_structured_output_of_a_random_model_always_fits_its_schema(
    random_engine: Engine, schema: Any, method: Literal["json_schema", "function_calling"]
) -> None:
    chat = ChatMLXAgent(engine=random_engine, temperature=1, max_tokens=6000)
    structured = chat.with_structured_output(schema, method=method)
    for answer in structured.batch(["Hi"] * 4):
        value = answer if isinstance(answer, dict) else answer.model_dump()
        assert set(value) == ({"name", "age"} if schema is PersonDict else {"name", "age", "mood"})
        assert isinstance(answer, Person) is (schema is Person)


async def test_structured_output_streams_and_awaits_the_same_value() -> None:
    with scripted(['{"name": "Ann", "age": 3, "mood": "bad"}']) as chat:
        for structured in (
            chat.with_structured_output(Person),
            chat.with_structured_output(Person, method="json_mode"),
        ):
            assert list(structured.stream("Hi")) == [Person(name="Ann", age=3, mood="bad")]
            assert await structured.ainvoke("Hi") == Person(name="Ann", age=3, mood="bad")


def test_structured_output_that_is_cut_off_or_does_not_fit_is_never_repaired() -> None:
    with scripted(['{"name": "Ann", "age": 3, "mood": "bad"}'], max_tokens=20) as chat:
        for method in ("json_schema", "function_calling", "json_mode"):
            with pytest.raises(OutputParserException, match="max_tokens ended inside the answer"):
                chat.with_structured_output(Person, method=method).invoke("Hi")
        answer = chat.with_structured_output(Person, include_raw=True).invoke("Hi")
        assert answer["parsed"] is None and isinstance(answer["parsing_error"], OutputParserException)
        assert isinstance(answer["raw"], AIMessage) and answer["raw"].text.startswith('{"name"')
    with scripted(['{"name": "Ann", "age": -3}']) as chat:
        for schema in (Person, Person.model_json_schema()):
            with pytest.raises(OutputParserException, match="does not fit the schema"):
                chat.with_structured_output(schema, method="json_mode").invoke("Hi")


def test_include_raw_gives_the_message_and_the_value() -> None:
    with scripted(['{"name": "Ann", "age": 3, "mood": "bad"}']) as chat:
        answer = chat.with_structured_output(Person, include_raw=True).invoke("Hi")
    assert answer["parsed"] == Person(name="Ann", age=3, mood="bad") and answer["parsing_error"] is None
    assert json.loads(answer["raw"].content) == {"name": "Ann", "age": 3, "mood": "bad"}


def test_schemas_of_every_kind_become_json_schemas() -> None:
    assert json_schema_of(Person) == Person.model_json_schema()
    assert json_schema_of({"type": "integer"}) == {"type": "integer"}
    assert json_schema_of(PersonDict)["required"] == ["name", "age"]
    function = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    assert json_schema_of(function)["properties"] == {"x": {"type": "integer"}}
    assert tool_of(PersonDict)["function"]["parameters"]["required"] == ["name", "age"]
    openai = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    assert response_format_of(openai) == openai and response_format_of(None) is None
    assert response_format_of(Person, strict=True) == {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema(), "strict": True},
    }
    with pytest.raises(RequestError, match="response_format=3 must be"):
        response_format_of(3)


# ---- parameters


def test_a_calls_stop_replaces_the_models_own_and_an_empty_one_means_none() -> None:
    stop_as: dict[str, Any] = {"stop_sequences": ["one"]}
    with scripted(["one two three"], stop=["two"]) as chat:
        assert chat.invoke("Hi").content == "one "
        assert chat.invoke("Hi", stop=["three"]).content == "one two "
        assert chat.invoke("Hi", stop=[]).content == "one two three"
        assert ChatMLXAgent(engine=chat.engine, **stop_as).invoke("Hi").content == ""


def test_the_parameters_of_a_call_come_before_the_models_own() -> None:
    with scripted(["one two three"], max_tokens=3) as chat:
        assert chat.invoke("Hi").content == "one"
        assert chat.invoke("Hi", max_tokens=5).content == "one t"
        with pytest.raises(RequestError, match="temperature=-1 must be"):
            chat.invoke("Hi", temperature=-1)
        with pytest.raises(RequestTimeout):
            ChatMLXAgent(engine=chat.engine, timeout=0).invoke("Hi")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"stop": [""]}, "stop="),
        ({"model_kwargs": {"n": 2}}, "model_kwargs holds 'n'; known: .*ignore_eos, .*priority, .*stop_token_ids"),
        ({"model_kwargs": {"logprobs": 2}}, "model_kwargs holds 'logprobs'; known: .*ignore_eos, .*stop_token_ids"),
        ({"model": "other"}, "model='other' is not what engine serves"),
        ({"engine_config": CONFIG}, "engine_config .* cannot be combined with engine"),
    ],
)
def test_bad_parameters_are_refused_at_once(random_engine: Engine, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChatMLXAgent(engine=random_engine, **parameters)


def test_a_model_or_an_engine_is_needed_and_unknown_parameters_are_told() -> None:
    with pytest.raises(ValidationError, match="model='' must be"):
        ChatMLXAgent(temperature=0)
    parameters: dict[str, Any] = {"model_name": "demo", "tempreature": 1, "base_url": "http://localhost"}
    with pytest.warns(UserWarning, match="ChatMLXAgent has no parameter 'base_url', 'tempreature'"):
        chat = ChatMLXAgent(**parameters)
    assert chat.model == "demo"


def test_answers_are_cached_by_everything_that_they_depend_on() -> None:
    cache = InMemoryCache()
    with scripted(["one two three"]) as chat:
        models = [ChatMLXAgent(engine=chat.engine, cache=cache, stop=[stop]) for stop in ("two", "three")]
        assert [model.invoke("Hi").content for model in models] == ["one ", "one two "]
        num_steps = engine_of(chat).stats().num_steps
        assert models[0].invoke("Hi").content == "one " and engine_of(chat).stats().num_steps == num_steps
        assert models[0].invoke("Hi", stop=["three"]).content == "one two "


def test_identity_profile_and_tracing_name_the_model() -> None:
    with scripted(["Hi."], temperature=0.5, stop=["x"]) as chat:
        assert chat._llm_type == "mlx-agent" and chat._identifying_params["temperature"] == 0.5
        params = chat._get_ls_params(max_tokens=7)
        assert params["ls_model_name"] == chat.model and params["ls_temperature"] == 0.5
        assert params["ls_stop"] == ["x"] and params["ls_max_tokens"] == 7
        assert chat.profile is not None and chat.profile["structured_output"]
        assert chat.profile["max_input_tokens"] == engine_of(chat).max_model_len - 1
        assert chat.get_num_tokens("wörld") == 6 and chat.get_token_ids("ab") == [97, 98]
        plain = chat.get_num_tokens_from_messages([HumanMessage("Hi")])
        assert chat.get_num_tokens_from_messages([HumanMessage("Hi")], tools=[add]) > plain + 50


# ---- messages


def test_messages_of_every_kind_become_what_the_engine_takes() -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
    assert as_dicts(
        [
            SystemMessage("Be brief."),
            HumanMessage([{"type": "text", "text": "a"}, "b"], name="Ann"),
            AIMessage([{"type": "thinking", "thinking": "?"}, {"type": "tool_use", "id": "c1"}], tool_calls=[call]),
            ToolMessage("2", tool_call_id="c1"),
            ChatMessage(content="Hm.", role="developer"),
        ]
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab", "name": "Ann"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "developer", "content": "Hm."},
    ]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (
            [HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])],
            r"messages\[0\].content\[0\] of type 'image_url'",
        ),
        ([HumanMessage([{"type": "text", "text": None}])], r"messages\[0\].content\[0\] of type 'text' must be"),
        (
            [HumanMessage("a"), AIMessage([{"type": "tool_use", "id": "c9"}])],
            r"messages\[1\].content\[0\] of type 'tool_use'",
        ),
        ([FunctionMessage(content="a", name="f")], r"messages\[0\] of type 'function' must be"),
        ([ToolMessage("2", tool_call_id="c1")], r"messages\[0\].tool_call_id='c1' must be the id of a call"),
        ([ChatMessage(content="a", role="robot")], r"messages\[0\].role='robot' must be one of"),
        ([], "messages="),
    ],
)
def test_messages_that_the_model_cannot_read_are_refused(
    random_engine: Engine, messages: list[BaseMessage], error: str
) -> None:
    with pytest.raises(RequestError, match=error):
        ChatMLXAgent(engine=random_engine).invoke(messages)


async def test_a_prompt_that_does_not_fit_is_langchains_error_and_ours(random_engine: Engine) -> None:
    chat = ChatMLXAgent(engine=random_engine)
    for kind in (ContextOverflowError, ContextLengthError):
        with pytest.raises(kind, match="max_model_len=8192"):
            chat.invoke("x" * 9000)
        with pytest.raises(kind, match="max_model_len=8192"):
            await chat.ainvoke("x" * 9000)


# ---- shared engines


class CountingLoader:
    """Makes engines of scripted models, slowly enough for two threads to ask at the same time."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []

    def __call__(self, model: str, config: EngineConfig) -> Engine:
        time.sleep(0.1)
        if model == "missing":
            raise ModelLoadError(f"model={model!r} is not there")
        scripted_model = ScriptedModel(["Hi."])
        self.engines.append(Engine.from_parts(scripted_model, scripted_model.tokenizer, config))
        return self.engines[-1]


def test_chat_models_share_an_engine_by_model_and_config_until_the_last_one_is_closed() -> None:
    load = CountingLoader()

    class Chat(ChatMLXAgent):
        engines = EngineRegistry(load)

    one, two = (Chat(model="m", engine_config=CONFIG) for _ in range(2))
    other = Chat(model="m", engine_config=EngineConfig(kv_cache_tokens=4096, device="cpu"))
    assert load.engines == []  # nothing is loaded before it is needed
    threads = [threading.Thread(target=chat.invoke, args=["Hi"]) for chat in (one, two, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load.engines) == 2
    one.close()
    assert two.invoke("Hi").content == "Hi." and len(load.engines) == 2
    assert one.invoke("Hi", model="n").response_metadata["model_name"] == "n" and len(load.engines) == 3
    for chat in (one, two, other):
        chat.close()
        chat.close()
    for engine in load.engines:
        with pytest.raises(EngineClosedError):
            engine.submit("Hi")


def test_a_holder_that_is_gone_keeps_no_engine_open_and_a_failed_load_is_tried_again() -> None:
    load = CountingLoader()
    registry, stays = EngineRegistry(load), EngineHolder()
    assert registry.acquire(EngineHolder(), "m", CONFIG) is registry.acquire(stays, "m", CONFIG)
    registry.release(stays)
    with pytest.raises(EngineClosedError):
        load.engines[0].submit("Hi")
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="model='missing' is not there"):
            registry.acquire(stays, "missing", CONFIG)
    registry.release(stays)
