"""An engine through a server says what it says in this process."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest
from pydantic import BaseModel

from mlx_agent_llm import (
    ChatDelta,
    ContextLengthError,
    Engine,
    EngineClosedError,
    GenerationError,
    JSONSchema,
    ModelLoadError,
    Regex,
    RequestError,
    RequestTimeout,
    SamplingParams,
    Tool,
    ToolChoiceError,
    UnsupportedSchemaError,
)
from mlx_agent_llm.chat import ToolCallDelta
from mlx_agent_llm.remote import RemoteEngine, RemoteServer
from tests.support.engines import assert_is_clean
from tests.support.servers import (
    ADD_CALL,
    ADD_TOOL,
    ASK,
    listening,
    scripted_engine,
    thinking_engine,
    url_of,
    wait_until,
)

PERSON = '{"name": "Ada", "age": 36}'


class Person(BaseModel):
    name: str
    age: int


def reply(prompt: str) -> str:
    if "break" in prompt:
        raise RuntimeError("the model broke")
    if "forever" in prompt:
        return "Hello. " * 500
    return PERSON if "Who" in prompt else ADD_CALL if "add" in prompt else "Hello to you."


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    yield scripted_engine(reply, max_num_seqs=4)


@pytest.fixture(scope="module")
def remote(local: Engine) -> Iterator[RemoteEngine]:
    with listening(local, keys=["secret"]) as server:
        yield RemoteEngine(RemoteServer(f"{url_of(server)}/v1", "secret"), "default")


def comparable(deltas: list[ChatDelta]) -> list[ChatDelta]:
    """Deltas without what is another one in each request."""
    return [_plain(delta) for delta in deltas]


def _plain(delta: ChatDelta) -> ChatDelta:
    call, whole = delta.tool_call, delta.finished_call
    usage = None if delta.usage is None else replace(delta.usage, cached_tokens=0)
    return replace(
        delta,
        timings=None,
        usage=usage,
        tool_call=call and ToolCallDelta(call.index, None, call.name, call.arguments),
        finished_call=whole and replace(whole, id=""),
    )


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("hi", {}),
    ("hi", {"params": SamplingParams(stop=["to"], logprobs=2)}),
    ("hi", {"params": SamplingParams(max_tokens=3)}),
    ("add", {"tools": [ADD_TOOL], "tool_choice": "required"}),
    ("add", {"tools": [Tool(**ADD_TOOL["function"])], "tool_choice": True, "parallel_tool_calls": False}),
    ("add", {"tools": [ADD_TOOL], "params": SamplingParams(max_tokens=40)}),  # which closes it by force
    ("Who", {"response_format": Person, "params": SamplingParams(logprobs=0, max_tokens=24)}),
    ("Who", {"response_format": {"type": "json_object"}}),
    ("hi", {"params": SamplingParams(constraint=Regex("Hello to y[aeo]u"))}),
]


@pytest.mark.parametrize(("text", "options"), OPTIONS)
async def test_deltas_are_those_of_the_engine(
    local: Engine, remote: RemoteEngine, text: str, options: dict[str, Any]
) -> None:
    expected = comparable(list(local.stream_chat(ask(text), **options)))
    assert repr(comparable(await asyncio.to_thread(list, remote.stream_chat(ask(text), **options)))) == repr(expected)
    assert repr(comparable([d async for d in remote.astream_chat(ask(text), **options)])) == repr(expected)


async def test_completions_are_those_of_the_engine(local: Engine, remote: RemoteEngine) -> None:
    params = SamplingParams(max_tokens=8, n=2, seed=1, logprobs=1)
    expected = [(one.text, one.token_ids, one.logprobs) for one in local.generate(["a", [3, 4]], params)]
    for outputs in (remote.generate(["a", [3, 4]], params), await remote.agenerate(["a", [3, 4]], params)):
        assert [(one.text, one.token_ids, one.logprobs) for one in outputs] == expected
    text = "".join(delta.text for delta in local.stream("a"))
    assert "".join(delta.text for delta in remote.stream("a")) == text
    assert "".join([delta.text async for delta in remote.astream("a")]) == text


def test_more_prompts_than_wait_in_the_queue_are_run(remote: RemoteEngine) -> None:
    assert len(remote.generate(["a"] * 300, SamplingParams(max_tokens=1))) == 300


def test_what_is_asked_about_the_model_is_the_engines(local: Engine, remote: RemoteEngine) -> None:
    assert (remote.model_name, remote.max_model_len) == ("scripted", local.max_model_len)
    assert remote.tokenizer.chat_template == local.tokenizer.chat_template
    assert remote.tokenizer.encode("héllo") == local.tokenizer.encode("héllo")
    part = [{"role": "tool", "tool_call_id": "x", "content": "42"}]
    assert remote.count_tokens(part, tools=[ADD_TOOL]) == local.count_tokens(part, tools=[ADD_TOOL])


def test_the_bytes_of_tokens_are_known_where_log_probabilities_name_them(local: Engine, remote: RemoteEngine) -> None:
    output = remote.chat(ASK, params=SamplingParams(logprobs=3))
    assert output.logprobs
    for one in output.logprobs:
        for token_id in (one.token_id, *(token_id for token_id, _ in one.top)):
            assert remote.tokenizer.token_bytes[token_id] == local.tokenizer.token_bytes[token_id]


def test_reasoning_is_told() -> None:
    engine = thinking_engine("<think>Who was it?</think>Ada.")
    with listening(engine) as server:
        remote = RemoteEngine(RemoteServer(url_of(server)), "scripted")
        output = remote.chat(ask("Who?"), enable_thinking=True)
    assert remote.can_reason and (output.reasoning, output.text) == ("Who was it?", "Ada.")


UNSUPPORTED = JSONSchema({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}})
BAD: list[tuple[Callable[[Any], Any], type[Exception]]] = [
    (lambda engine: engine.chat(ask("a" * 100_000)), ContextLengthError),
    (lambda engine: engine.chat(ASK, params=SamplingParams(timeout=0.000001)), RequestTimeout),
    (lambda engine: engine.chat(ask("break")), GenerationError),
    (lambda engine: engine.chat(ASK, tools=[ADD_TOOL], tool_choice="nobody"), ToolChoiceError),
    (lambda engine: engine.chat(ASK, documents=[{"text": "shown by no template"}]), RequestError),
    (lambda engine: engine.chat([{"role": "poet", "content": "a"}]), RequestError),
    (lambda engine: engine.chat(ASK, response_format={"not": {"pattern": "(?=a)"}}), RequestError),
    (lambda engine: engine.generate([[10**9]]), RequestError),
    (lambda engine: engine.generate(["a"], SamplingParams(constraint=Regex("a"), stop=["b"])), RequestError),
    (lambda engine: list(engine.stream("\ud800")), RequestError),
]


@pytest.mark.parametrize(("call", "kind"), BAD)
def test_errors_are_the_engines(
    local: Engine, remote: RemoteEngine, call: Callable[[Any], Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as here:
        call(local)
    with pytest.raises(kind) as there:
        call(remote)
    assert type(there.value) is type(here.value)
    if "surrogate" not in str(here.value):  # the server refuses the body before the engine sees it
        assert _without_number(there.value) == _without_number(here.value)


def _without_number(error: Exception) -> str:
    return re.sub(r"request \d+", "request", str(error))


def test_an_error_has_its_fields(local: Engine, remote: RemoteEngine) -> None:
    errors = []
    for engine in (local, remote):
        with pytest.raises(UnsupportedSchemaError) as caught:
            engine.chat(ASK, response_format=UNSUPPORTED)
        errors.append((caught.value.pointer, caught.value.keyword, caught.value.reason))
    assert errors[0] == errors[1]


def test_a_wrong_key_an_unknown_model_and_no_server_are_told_apart(remote: RemoteEngine) -> None:
    url = remote._server.base_url
    with pytest.raises(RequestError, match="API key"):
        RemoteEngine(RemoteServer(url, "wrong"), "default")
    with pytest.raises(ModelLoadError, match="known models"):
        RemoteEngine(RemoteServer(url, "secret"), "nobody")
    with pytest.raises(EngineClosedError, match="ConnectError"):
        RemoteEngine(RemoteServer("http://127.0.0.1:9"), "default")
    with pytest.raises(ValueError, match="base_url"):
        RemoteServer("localhost:8000")


def test_a_stream_that_is_closed_ends_its_request(local: Engine, remote: RemoteEngine) -> None:
    stream = remote.stream_chat(ask("forever"), params=SamplingParams(max_tokens=3000))
    next(stream)
    cast(Any, stream).close()
    assert list(stream) == []
    wait_until(lambda: local.stats().num_running == 0 and local.stats().requests.num_finished["cancelled"] > 0)


def test_another_thread_ends_a_stream_that_waits(local: Engine, remote: RemoteEngine) -> None:
    stream = remote.stream_chat(ask("forever"), params=SamplingParams(max_tokens=3000))
    num_read: list[int] = []
    reader = threading.Thread(target=lambda: num_read.append(len(list(stream))))
    reader.start()
    wait_until(lambda: local.stats().num_running > 0)
    cast(Any, stream).close()
    reader.join(20)
    assert not reader.is_alive() and num_read[0] < 3000
    wait_until(lambda: local.stats().num_running == 0)


async def test_a_task_that_is_cancelled_ends_its_request(local: Engine, remote: RemoteEngine) -> None:
    deltas = remote.astream_chat(ask("forever"), params=SamplingParams(max_tokens=3000))
    async with aclosing(cast(Any, deltas)) as stream:
        await anext(stream)
    task = asyncio.create_task(remote.agenerate(["forever"], SamplingParams(max_tokens=3000)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until, lambda: local.stats().num_running == 0)


def test_a_server_that_ends_is_an_error_of_its_streams() -> None:
    engine = scripted_engine(lambda _: "Hello. " * 500)
    with listening(engine, drain_seconds=0.05) as server:
        remote = RemoteEngine(RemoteServer(url_of(server)), "default")
        stream = remote.stream_chat(ASK, params=SamplingParams(max_tokens=3500))
        next(stream)
        server.should_exit = True
        with pytest.raises(EngineClosedError):
            list(stream)
    assert_is_clean(engine)
