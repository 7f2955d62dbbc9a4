"""MLXAgentLLM's objects: decoded by schema, whole and as they grow, for programs, StructuredLLM and tracing."""

from enum import Enum
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, field_validator

from llama_index.llms.mlx_agent import AnswerError, LLMRequestError
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.engines import MakeLLM


class Tone(Enum):
    major = "major"
    minor = "minor"


class Song(BaseModel):
    """A song."""

    title: str
    tones: list[Tone]


class Album(BaseModel):
    """An album."""

    title: str
    songs: list[Song]
    year: int | None = None


TEXT = '{"title": "Tides", "songs": [{"title": "Ebb", "tones": ["minor", "major"]}], "year": 1987}'
ALBUM = Album.model_validate_json(TEXT)
PROMPT = PromptTemplate("Name an album about {topic}.")


async def whole_answers(llm: LLM) -> list[Album]:
    """The object of each of the four ways to ask."""
    return [
        llm.structured_predict(Album, PROMPT, topic="tides"),
        await llm.astructured_predict(Album, PROMPT, topic="tides"),
        list(llm.stream_structured_predict(Album, PROMPT, topic="tides"))[-1],
        [one async for one in await llm.astream_structured_predict(Album, PROMPT, topic="tides")][-1],
    ]


async def test_every_way_to_ask_gives_the_same_object(make_llm: MakeLLM) -> None:
    assert await whole_answers(make_llm([TEXT])) == [ALBUM] * 4


async def test_a_model_that_wants_something_else_gives_an_object_all_the_same(make_llm: MakeLLM) -> None:
    class Point(BaseModel):
        x: int = Field(ge=0, le=99)
        tone: Tone

    llm = make_llm(RandomLogitsModel(), seed=1, max_tokens=200)
    for _ in range(4):
        assert isinstance(llm.structured_predict(Point, PROMPT, topic="x"), Point)
        assert isinstance(await llm.astructured_predict(Point, PROMPT, topic="x"), Point)


async def test_a_stream_gives_growing_fields_and_the_object_at_last(make_llm: MakeLLM) -> None:
    llm = make_llm([TEXT])
    objects: list[Any] = list(llm.stream_structured_predict(Album, PROMPT, topic="tides"))
    again = [one async for one in await llm.astream_structured_predict(Album, PROMPT, topic="tides")]
    assert [one.model_dump() for one in objects] == [one.model_dump() for one in again]
    *partial, last = objects
    assert last == ALBUM
    assert all(isinstance(one, FlexibleModel) for one in partial)
    titles = [one.title for one in partial]
    assert titles[:5] == ["", "T", "Ti", "Tid", "Tide"] and titles[-1] == "Tides"
    assert [len(one.songs or ()) for one in partial][-1] == 1
    sizes = [len(one.model_dump_json(exclude_none=True)) for one in partial]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes) > 20


def test_the_system_prompt_and_options_of_the_call_hold(make_llm: MakeLLM) -> None:
    prompts: set[str] = set()

    def reply(prompt: str) -> str:
        prompts.add(prompt)
        return TEXT

    llm = make_llm(reply, system_prompt="Be kind.", max_tokens=3)
    options = {"max_tokens": 200, "tool_choice": "required", "tool_required": True}
    assert llm.structured_predict(Album, PROMPT, llm_kwargs=options, topic="tides") == ALBUM
    chat = ChatPromptTemplate([ChatMessage("Be brief.", role="system"), ChatMessage("An album: {topic}")])
    assert llm.structured_predict(Album, chat, llm_kwargs=options, topic="tides") == ALBUM
    for prompt in prompts:
        assert prompt.startswith("<|im_start|>system\nBe kind.") and prompt.count("Be kind.") == 1
    [plain, brief] = sorted(prompts, key=lambda prompt: "Be brief." in prompt)
    assert "about tides." in plain
    assert brief.index("Be brief.") < brief.index("An album: tides")


async def test_an_object_that_would_be_cut_off_is_closed_and_that_is_said(make_llm: MakeLLM) -> None:
    llm = make_llm([TEXT], max_tokens=70)
    for album in await whole_answers(llm):
        assert album.title == "Tides" and album != ALBUM
    answer = llm.chat([ChatMessage("Hi")], response_format=Album)
    assert (answer.raw["finish_reason"], answer.raw["forced_close"]) == ("length", True)


async def test_an_object_that_cannot_fit_is_refused_in_every_way(make_llm: MakeLLM) -> None:
    llm = make_llm([TEXT], max_tokens=9)
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        llm.structured_predict(Album, PROMPT, topic="tides")
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        await llm.astructured_predict(Album, PROMPT, topic="tides")
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        list(llm.stream_structured_predict(Album, PROMPT, topic="tides"))
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        [one async for one in await llm.astream_structured_predict(Album, PROMPT, topic="tides")]
    with pytest.raises(LLMRequestError, match="max_tokens=9"):
        await llm.as_structured_llm(Album).achat([ChatMessage("Hi")])


def test_what_only_the_class_itself_can_refuse_is_an_error(make_llm: MakeLLM) -> None:
    class Even(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def check(cls, number: int) -> int:
            if number % 2:
                raise ValueError("is odd")
            return number

    llm = make_llm(['{"number": 3}'])
    with pytest.raises(AnswerError, match="the answer is no Even: 1 validation error"):
        llm.structured_predict(Even, PROMPT, topic="x")


def test_a_class_that_cannot_be_enforced_is_refused(make_llm: MakeLLM) -> None:
    class Word(BaseModel):
        text: str = Field(json_schema_extra={"pattern": "(?=a)b"})

    llm = make_llm(["{}"])
    with pytest.raises(LLMRequestError, match="pattern"):
        llm.structured_predict(Word, PROMPT, topic="x")
    with pytest.raises(LLMRequestError, match="pattern"):
        llm.as_structured_llm(Word).chat([ChatMessage("Hi")])
    with pytest.raises(LLMRequestError, match=r"output_cls=<class 'dict'> must be a pydantic model class"):
        llm.structured_predict(dict, PROMPT, topic="x")  # type: ignore[type-var]


async def test_a_structured_llm_answers_with_the_object(make_llm: MakeLLM) -> None:
    structured = make_llm([TEXT]).as_structured_llm(Album)
    messages = [ChatMessage('An album like {"title": {}}, please')]
    for answer in (structured.chat(messages), await structured.achat(messages), structured.complete("An album")):
        assert answer.raw == ALBUM
    streamed = list(structured.stream_chat(messages))
    astreamed = [one async for one in await structured.astream_chat(messages)]
    assert streamed[-1].raw == astreamed[-1].raw == ALBUM
    assert len(streamed) == len(astreamed) > 20


async def test_tokens_of_objects_are_counted(make_llm: MakeLLM) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: pytest.fail("a count was guessed"))
    await whole_answers(make_llm([TEXT], callback_manager=CallbackManager([counter])))
    assert counter.completion_llm_token_count == 4 * len(TEXT)


async def test_another_program_mode_is_honoured(make_llm: MakeLLM) -> None:
    """By function calls, and by asking in words."""
    called = '<tool_call>{"name": "Album", "arguments": ' + TEXT + "}</tool_call>"
    by_call = make_llm([called], pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert (await whole_answers(by_call))[:2] == [ALBUM] * 2
    in_words = make_llm([f"Here it is: {TEXT}"], pydantic_program_mode=PydanticProgramMode.LLM)
    assert in_words.structured_predict(Album, PROMPT, topic="tides") == ALBUM
    assert await in_words.astructured_predict(Album, PROMPT, topic="tides") == ALBUM
