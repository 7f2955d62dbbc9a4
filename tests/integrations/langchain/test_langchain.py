"""ChatMLXAgent's answers, whole and streamed, alone and many at once, through the real engine and grammar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage

from langchain_mlx_agent import ChatMLXAgent
from langchain_mlx_agent.answers import AnswerReader
from mlx_agent_llm import (
    ChatDelta,
    ContextLengthError,
    Engine,
    EngineConfig,
    QueueFullError,
    RequestError,
    Timings,
    Usage,
)
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel, ScriptedModel
from tests.support.langchain_chats import (
    ADD,
    CONFIG,
    Person,
    add,
    engine_of,
    merged,
    said,
    scripted,
    wait_until_no_block_is_used,
)


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


async def test_a_call_may_ask_for_n_answers_which_share_their_prompt() -> None:
    model = RandomLogitsModel()
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        chat = ChatMLXAgent(engine=engine, n=3, seed=5, temperature=1, max_tokens=20)
        (answers,) = chat.generate([[HumanMessage("Hi. " * 20)]]).generations
        (awaited,) = (await chat.agenerate([[HumanMessage("Hi. " * 20)]])).generations
        single = ChatMLXAgent(engine=engine, temperature=1, max_tokens=20)
        texts = [single.invoke("Hi. " * 20, seed=5 + index).content for index in range(3)]
        assert [answer.text for answer in answers] == [answer.text for answer in awaited] == texts
        assert engine.stats().max_batch_size == 3
        with pytest.raises(RequestError, match="n=3 must be 1 for a stream"):
            next(chat.stream("Hi"))
    cached = [answer.message.usage_metadata["input_token_details"]["cache_read"] for answer in answers]  # type: ignore[attr-defined]
    assert cached[0] == 0 and min(cached[1:]) >= 80


async def test_cancelling_a_call_of_n_answers_frees_the_blocks_of_all() -> None:
    with scripted(["x" * 4000], max_tokens=4000, n=3) as chat:
        task = asyncio.create_task(chat.ainvoke("Hi"))
        while engine_of(chat).stats().num_running < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until_no_block_is_used, engine_of(chat))


async def test_when_one_of_n_answers_is_refused_the_others_are_given_up() -> None:
    model = ScriptedModel(["x" * 4000])
    config = EngineConfig(kv_cache_tokens=16384, max_num_seqs=1, max_queue=1, device="cpu")
    with Engine.from_parts(model, model.tokenizer, config) as engine:
        chat = ChatMLXAgent(engine=engine, n=9, max_tokens=4000)
        with pytest.raises(QueueFullError):
            chat.invoke("Hi")
        wait_until_no_block_is_used(engine)
        with pytest.raises(QueueFullError):
            await chat.ainvoke("Hi")
        await asyncio.to_thread(wait_until_no_block_is_used, engine)


def test_log_probabilities_are_there_for_every_token_whole_and_streamed() -> None:
    with scripted(["wö."], logprobs=True, top_logprobs=2) as chat:
        whole, streamed = chat.invoke("Hi"), merged([chunk for chunk in chat.stream("Hi")])
    for message in (whole, streamed):
        content = message.response_metadata["logprobs"]["content"]
        assert bytes(byte for one in content for byte in one["bytes"]).decode() == "wö."
        assert len(content) == 5  # the end token, too
        assert all(
            len(one["top_logprobs"]) == 2 and one["logprob"] == one["top_logprobs"][0]["logprob"] for one in content
        )
        assert content[0]["token"] == "w" and content[1]["bytes"] == [0xC3]


async def test_an_async_call_takes_a_thread_for_its_prompt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reads prompts and compiles grammars in a thread; no token and no parser takes one."""
    num_hops = 0
    run_in_executor = asyncio.BaseEventLoop.run_in_executor

    def count(*arguments: Any) -> Any:
        nonlocal num_hops
        num_hops += 1
        return run_in_executor(*arguments)

    with scripted(['{"name": "Ann", "age": 3, "mood": "bad"}']) as chat:
        structured: Any = chat.with_structured_output(Person)
        both: Any = chat.with_structured_output(Person, include_raw=True)
        calls: list[Callable[[], Any]] = [
            lambda: chat.ainvoke("Hi"),
            lambda: _last(chat.astream("Hi")),
            lambda: structured.ainvoke("Hi"),
            lambda: _last(structured.astream("Hi")),
            lambda: both.ainvoke("Hi"),
        ]
        monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", count)
        for call in calls:
            num_hops = 0
            await call()
            assert num_hops == 1


async def _last(stream: AsyncIterator[Any]) -> Any:
    return [item async for item in stream][-1]


async def test_the_event_loop_goes_on_while_an_answer_is_written() -> None:
    num_ticks = 0

    async def tick() -> None:
        nonlocal num_ticks
        while True:
            num_ticks += 1
            await asyncio.sleep(0)

    with scripted(["x" * 200]) as chat:
        ticker = asyncio.create_task(tick())
        await chat.ainvoke("Hi")
        ticker.cancel()
    assert num_ticks > 200


async def test_callbacks_get_the_tokens_and_the_usage() -> None:
    class Tokens(BaseCallbackHandler):
        def __init__(self) -> None:
            self.tokens: list[str] = []

        def on_llm_new_token(self, token: str, **_: Any) -> None:  # type: ignore[override]
            self.tokens.append(token)

    with scripted(["Hi."], streaming=True) as chat, get_usage_metadata_callback() as usage:
        for call in (chat.invoke, chat.ainvoke):
            tokens = Tokens()
            answer: Any = call("Hello", {"callbacks": [tokens]})
            await answer if asyncio.iscoroutine(answer) else None
            assert [token for token in tokens.tokens if token] == ["H", "i", "."]
    assert usage.usage_metadata[chat.model]["output_tokens"] == 8


def test_reasoning_stands_in_a_block_of_its_own_whole_and_streamed() -> None:
    deltas = [
        ChatDelta(reasoning="Hm"),
        ChatDelta(reasoning="."),
        ChatDelta(text="Yes."),
        ChatDelta(finish_reason="stop", usage=Usage(reasoning_tokens=2), timings=Timings()),
    ]
    reader = AnswerReader("m", [])
    streamed = merged([chunk.message for delta in deltas if (chunk := reader.chunk(delta))])  # type: ignore[misc]
    for message in (AnswerReader("m", []).message(deltas), streamed):
        assert message.content_blocks == [
            {"type": "reasoning", "reasoning": "Hm."},
            {"type": "text", "text": "Yes."},
        ]
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_token_details"] == {"reasoning": 2}


class Thinker(ByteTokenizer):
    """Its template shows that the model thinks."""

    chat_template = ByteTokenizer.chat_template + "{# <think> enable_thinking #}"

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        ending = "<think></think>" if options.get("enable_thinking") is False else ""
        return super().apply_chat_template(messages, **options) + ending


async def test_a_model_that_thinks_is_asked_to_heard_and_limited() -> None:
    with Engine.from_parts(ScriptedModel(["<think>Hm, hm.</think>Yes."] * 2), Thinker(), CONFIG) as engine:
        chat = ChatMLXAgent(engine=engine)
        assert chat.profile is not None and chat.profile["reasoning_output"]
        answers: list[Any] = [
            chat.invoke("Well?"),
            await chat.ainvoke("Well?"),
            merged([one for one in chat.stream("Well?")]),
        ]
        for answer in answers:
            assert (answer.text, answer.additional_kwargs) == ("Yes.", {"reasoning_content": "Hm, hm."})
            assert answer.usage_metadata["output_token_details"]["reasoning"] >= len("Hm, hm.")
        limited = ChatMLXAgent(engine=engine, reasoning=True, max_reasoning_tokens=10).invoke("Well?")
        assert limited.additional_kwargs == {"reasoning_content": "Hm,"} and limited.text
        assert chat.invoke(["Well?", answers[0], "And?"]).text == "Yes."
    with (
        scripted(["Yes."]) as chat,
        pytest.raises(ModelInvalidRequestError, match="max_reasoning_tokens=3 needs a model"),
    ):
        chat.invoke("Well?", max_reasoning_tokens=3)
