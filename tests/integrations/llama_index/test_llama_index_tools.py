"""MLXAgentLLM calls tools: choices, parallel calls, streams of arguments, programs, calls that were cut off."""

import asyncio
import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel, Field

from llama_index.llms.mlx_agent import AnswerError, LLMRequestError
from llama_index.llms.mlx_agent.responses import ResponseWriter, whole_response
from llama_index.llms.mlx_agent.tools import as_tool_dict
from mlx_agent_llm import ChatDelta, InvalidToolCall, Timings, Usage
from mlx_agent_llm.chat import ToolCallDelta
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.engines import MakeLLM


def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


async def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


ADD = FunctionTool.from_defaults(add)
SHOUT = FunctionTool.from_defaults(async_fn=shout)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


CALL = call("add", a=19, b=23)


def names(response: ChatResponse) -> list[str]:
    return [block.tool_name for block in response.message.blocks if isinstance(block, ToolCallBlock)]


async def test_every_way_to_chat_with_tools_gives_the_same_call(make_llm: MakeLLM) -> None:
    llm = make_llm(["Let me see. " + CALL])
    answers = [
        llm.chat_with_tools([ADD], "19 + 23?"),
        await llm.achat_with_tools([ADD], "19 + 23?"),
        list(llm.stream_chat_with_tools([ADD], "19 + 23?"))[-1],
        [one async for one in await llm.astream_chat_with_tools([ADD], "19 + 23?")][-1],
    ]
    for answer in answers:
        [selection] = llm.get_tool_calls_from_response(answer)
        assert (selection.tool_name, selection.tool_kwargs) == ("add", {"a": 19, "b": 23})
        assert answer.message.content.rstrip() == "Let me see."
        [block] = [block for block in answer.message.blocks if isinstance(block, ToolCallBlock)]
        assert (block.tool_call_id, block.tool_kwargs) == (selection.tool_id, {"a": 19, "b": 23})
        [entry] = answer.message.additional_kwargs["tool_calls"]
        assert (entry["id"], json.loads(entry["function"]["arguments"])) == (block.tool_call_id, block.tool_kwargs)
        assert answer.raw["finish_reason"] == "tool_calls"


def test_history_and_message_come_in_order_and_the_history_is_not_changed(make_llm: MakeLLM) -> None:
    llm = make_llm(["One.", CALL])
    history = [ChatMessage("Hi"), ChatMessage("One.", role="assistant")]
    for message in ("19 + 23?", ChatMessage("19 + 23?")):
        prepared = llm._prepare_chat_with_tools([ADD], message, history)
        assert [one.content for one in prepared["messages"]] == ["Hi", "One.", "19 + 23?"]
        assert len(history) == 2
        assert names(llm.chat_with_tools([ADD], message, history)) == ["add"]


@pytest.mark.parametrize(
    ("options", "called"),
    [
        ({}, ["add"]),
        ({"tool_choice": "auto"}, ["add"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": "shout"}, ["shout"]),
        ({"tool_choice": {"type": "function", "function": {"name": "shout"}}}, ["shout"]),
        ({"tool_choice": "shout", "tool_required": True}, ["shout"]),
        ({"tool_required": True}, ["add"]),
        ({"allow_parallel_tool_calls": True}, ["add", "add"]),
    ],
)
def test_choices_decide_what_is_called(make_llm: MakeLLM, options: dict[str, Any], called: list[str]) -> None:
    llm = make_llm([CALL + "\n" + CALL], max_tokens=400)
    assert names(llm.chat_with_tools([ADD, SHOUT], "Go", **options)) == called


@pytest.mark.parametrize("choice", [None, "auto", "required", "any", True])
def test_a_model_that_would_rather_talk_calls_when_it_must(make_llm: MakeLLM, choice: Any) -> None:
    llm = make_llm(RandomLogitsModel(), max_tokens=1500, seed=3)
    answer = llm.chat_with_tools([ADD], "Go", tool_required=True, tool_choice=choice)
    [selection] = llm.get_tool_calls_from_response(answer)
    assert selection.tool_kwargs.keys() == {"a", "b"}
    assert all(isinstance(value, int) for value in selection.tool_kwargs.values())


@pytest.mark.parametrize(
    ("tools", "options", "said"),
    [
        ([], {"tool_required": True}, "needs tools, but none are given"),
        ([ADD], {"tool_choice": "subtract"}, "tool_choice='subtract' must be"),
        ([ADD], {"tool_required": True, "tool_choice": "none"}, "contradicts tool_required=True"),
        ([ADD, ADD], {}, "declared twice"),
        ([FunctionTool.from_defaults(add, name="to add")], {}, "tool name='to add'"),
        ([42], {}, "tool=42 must be"),
    ],
)
def test_tools_and_choices_that_make_no_sense_are_refused_at_once(
    make_llm: MakeLLM, tools: list[Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(LLMRequestError, match=said):
        make_llm(["Hi."]).stream_chat_with_tools(tools, "Go", **options)


def test_a_tool_without_a_schema_is_refused(make_llm: MakeLLM) -> None:
    tool = FunctionTool(add, ToolMetadata(description="Add.", name="add", fn_schema=None))
    with pytest.raises(LLMRequestError, match="tool 'add': fn_schema=None must be a pydantic model"):
        make_llm(["Hi."]).chat_with_tools([tool], "Go")


def test_a_tool_whose_schema_cannot_be_enforced_is_refused(make_llm: MakeLLM) -> None:
    class Code(BaseModel):
        code: str = Field(json_schema_extra={"pattern": "(?=a)b"})

    tool = FunctionTool.from_defaults(lambda code: code, name="read", description="Read.", fn_schema=Code)
    with pytest.raises(LLMRequestError, match="pattern"):
        make_llm(["Hi."]).chat_with_tools([tool], "Go")


def test_a_tool_is_shown_with_its_whole_schema() -> None:
    class Exact(BaseModel, extra="forbid"):
        a: int

    tool = FunctionTool.from_defaults(lambda a: a, name="exact", description="Be exact.", fn_schema=Exact)
    function = as_tool_dict(tool)["function"]
    assert (function["name"], function["description"]) == ("exact", "Be exact.")
    assert function["parameters"] == {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }


async def test_arguments_grow_from_chunk_to_chunk(make_llm: MakeLLM) -> None:
    llm = make_llm([call("shout", text="Grüß dich")])
    chunks = [one async for one in await llm.astream_chat_with_tools([SHOUT], "Go")]
    seen = [llm.get_tool_calls_from_response(chunk, error_on_no_tool_call=False) for chunk in chunks]
    texts = [one.tool_kwargs.get("text", "") for [one] in seen if one]
    assert texts == sorted(texts, key=len) and len(set(texts)) > 8
    assert texts[-1] == "Grüß dich"
    assert len({one.tool_id for [one] in seen}) == 1
    assert "".join(chunk.delta or "" for chunk in chunks) == ""


def test_equal_parallel_calls_are_all_kept_with_ids_of_their_own(make_llm: MakeLLM) -> None:
    llm = make_llm([CALL + "\n" + CALL, CALL])
    last = list(llm.stream_chat_with_tools([ADD], "Go", allow_parallel_tool_calls=True))[-1]
    selections = llm.get_tool_calls_from_response(last)
    assert [one.tool_kwargs for one in selections] == [{"a": 19, "b": 23}] * 2
    assert len({one.tool_id for one in selections}) == 2


async def test_what_a_tool_said_goes_back_by_its_id(make_llm: MakeLLM) -> None:
    prompts: set[str] = set()

    def reply(prompt: str) -> str:
        prompts.add(prompt)
        return "It is 42." if "42" in prompt else CALL

    llm = make_llm(reply)
    asked = llm.chat_with_tools([ADD], "19 + 23?")
    [selection] = llm.get_tool_calls_from_response(asked)
    result = ChatMessage("42", role="tool", additional_kwargs={"tool_call_id": selection.tool_id})
    stored = ChatMessage.model_validate_json(asked.message.model_dump_json())  # as a memory keeps it
    answer = await llm.achat_with_tools([ADD], chat_history=[ChatMessage("19 + 23?"), stored, result])
    assert answer.message.content == "It is 42."
    [told] = [prompt for prompt in prompts if "42" in prompt]
    assert told.count('"a": 19') == 1 and told.index('"a": 19') < told.index("42")


# ---- predict and call


async def test_predict_and_call_runs_the_tool(make_llm: MakeLLM) -> None:
    llm = make_llm([CALL])
    for answer in (llm.predict_and_call([ADD], "Go"), await llm.apredict_and_call([ADD], "Go")):
        assert answer.response == "42"
        assert [source.raw_output for source in answer.sources] == [42]


async def test_predict_and_call_runs_parallel_calls(make_llm: MakeLLM) -> None:
    llm = make_llm([CALL + "\n" + call("shout", text="hey")])
    answer = await llm.apredict_and_call([ADD, SHOUT], "Go", allow_parallel_tool_calls=True)
    assert answer.response == "42\n\nHEY"
    assert llm.predict_and_call([ADD, SHOUT], "Go", allow_parallel_tool_calls=True).response == "42\n\nHEY"


async def test_an_answer_without_a_call_is_an_error_where_a_call_has_to_be(make_llm: MakeLLM) -> None:
    llm = make_llm(["No."])
    with pytest.raises(AnswerError, match="the answer has no tool call: 'No"):
        llm.predict_and_call([ADD], "Go")
    assert llm.predict_and_call([ADD], "Go", error_on_no_tool_call=False).response == "No."
    answer = await llm.apredict_and_call([ADD], "Go", error_on_no_tool_call=False)
    assert (answer.response, answer.sources) == ("No.", [])


def test_a_tool_that_fails_is_an_error_when_asked_for(make_llm: MakeLLM) -> None:
    def fail(text: str) -> str:
        """Fail."""
        raise OSError("no disk")

    llm = make_llm([call("fail", text="x")])
    tool = FunctionTool.from_defaults(fail)
    assert llm.predict_and_call([tool], "Go").sources[0].is_error
    with pytest.raises(ValueError, match="no disk"):
        llm.predict_and_call([tool], "Go", error_on_tool_error=True)


# ---- calls that were cut off


async def test_a_call_that_would_be_cut_off_is_closed_and_that_is_said(make_llm: MakeLLM) -> None:
    llm = make_llm([call("shout", text="x" * 100)], max_tokens=90)
    for answer in (llm.chat_with_tools([SHOUT], "Go"), list(llm.stream_chat_with_tools([SHOUT], "Go"))[-1]):
        [selection] = llm.get_tool_calls_from_response(answer)
        assert 10 < len(selection.tool_kwargs["text"]) < 90
        assert (answer.raw["finish_reason"], answer.raw["forced_close"]) == ("length", True)
    with pytest.raises(LLMRequestError, match="max_tokens=5"):
        await llm.achat_with_tools([SHOUT], "Go", tool_required=True, max_tokens=5)


def test_a_call_that_was_broken_off_is_never_run(make_llm: MakeLLM) -> None:
    end = ChatDelta(finish_reason="length", usage=Usage(), timings=Timings())
    deltas = [
        ChatDelta(tool_call=ToolCallDelta(0, "1", "shout")),
        ChatDelta(tool_call=ToolCallDelta(0, arguments='{"text": "x')),
        ChatDelta(finished_call=InvalidToolCall("1", '<tool_call>{"name": "shout', "it ends too early")),
    ]
    llm = make_llm(["Hi."])
    [half] = llm.get_tool_calls_from_response(whole_response((one for one in deltas[:2]), ResponseWriter("m", [])))
    assert half.tool_kwargs == {"text": "x"}
    answer = whole_response((one for one in [*deltas, end]), ResponseWriter("m", []))
    assert names(answer) == [] and "tool_calls" not in answer.message.additional_kwargs
    assert [one["id"] for one in answer.message.additional_kwargs["invalid_tool_calls"]] == ["1"]
    with pytest.raises(AnswerError, match="a call that cannot be run: it ends too early: '<tool_call>"):
        llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)


# ---- LlamaIndex's function program


class Song(BaseModel):
    """A song."""

    title: str
    seconds: int


class Album(BaseModel):
    """An album."""

    title: str
    artist: str
    songs: list[Song]


ALBUM = {
    "title": "Tides",
    "artist": "Ann",
    "songs": [{"title": "Ebb", "seconds": 90}, {"title": "Flow", "seconds": 80}],
}


def album_program(make_llm: MakeLLM, **options: Any) -> FunctionCallingProgram[Any]:
    said = call("Album", **ALBUM) + "\n" + call("Album", **ALBUM)
    llm = make_llm([said], max_tokens=900)
    return FunctionCallingProgram.from_defaults(
        output_cls=Album, prompt_template_str="An album about {topic}.", llm=llm, **options
    )


async def test_a_function_program_gives_an_object(make_llm: MakeLLM) -> None:
    program = album_program(make_llm)
    assert program(topic="tides") == await program.acall(topic="tides") == Album(**ALBUM)


def test_a_function_program_gives_several_objects(make_llm: MakeLLM) -> None:
    program = album_program(make_llm, allow_parallel_tool_calls=True)
    assert program(topic="tides") == [Album(**ALBUM)] * 2


async def test_a_function_program_streams_growing_objects(make_llm: MakeLLM) -> None:
    program = album_program(make_llm, tool_choice="required")
    streams = [list(program.stream_call(topic="tides"))]
    streams.append([one async for one in await program.astream_call(topic="tides")])
    for objects in streams:
        numbers = [len(getattr(one, "songs", None) or ()) for one in objects]
        assert numbers == sorted(numbers) and set(numbers) == {0, 1, 2}
        assert objects[-1] == Album(**ALBUM)


def test_eight_threads_may_call_tools_at_once(make_llm: MakeLLM) -> None:
    llm = make_llm([CALL])

    async def call_all() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(llm.predict_and_call, [ADD], "Go") for _ in range(8)))

    assert [answer.response for answer in asyncio.run(call_all())] == ["42"] * 8


def test_other_tools_than_functions_are_taken(make_llm: MakeLLM) -> None:
    class Echo(BaseTool):
        metadata = ToolMetadata(description="Echo.", name="echo")  # type: ignore[assignment]

        def __call__(self, input: Any) -> Any:
            return ADD(a=len(input), b=0)

    assert make_llm([call("echo", input="four")]).predict_and_call([Echo()], "Go").response == "4"
