"""The clients of OpenAI and Anthropic against a server that listens."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from mlx_agent_llm import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.server.app import DrainingServer
from tests.support.servers import ADD, ADD_CALL, ADD_TOOL, ASK, CONFIG, listening, thinking_engine, url_of

QUESTION: Any = [{"role": "user", "content": "What is 19 + 23?"}]
TOOLS: Any = [ADD_TOOL]
CLAUDE_TOOLS: Any = [{"name": "add", "input_schema": ADD["parameters"]}]


class Person(BaseModel):
    name: str
    age: int


def reply(prompt: str) -> str:
    if "Who?" in prompt:
        return '{"name": "Ada", "age": 36}'
    return "It is 42." if "42" in prompt else ADD_CALL if "19 + 23" in prompt else "Hello."


@pytest.fixture(scope="module")
def server() -> Iterator[DrainingServer]:
    with listening(reply) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: DrainingServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url_of(server)}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(server: DrainingServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url_of(server), api_key="none", max_retries=0) as client:
        yield client


def test_openai_calls_tools_and_goes_on(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="default", messages=QUESTION, tools=TOOLS)
    message = first.choices[0].message
    assert message.tool_calls is not None
    turns = [*QUESTION, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "42"}]
    second = client.chat.completions.create(model="default", messages=turns, tools=TOOLS)
    assert second.choices[0].message.content == "It is 42."


def test_openai_streams(client: openai.OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    with client.chat.completions.stream(model="default", messages=QUESTION, tools=TOOLS, **options) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    calls = final.choices[0].message.tool_calls
    assert calls is not None and json.loads(calls[0].function.arguments) == {"a": 19, "b": 23}
    assert final.usage is not None and final.usage.completion_tokens > 0


def test_openai_parses(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Who?"}]
    completion = client.chat.completions.parse(model="default", messages=messages, response_format=Person)
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)
    response = client.responses.parse(model="default", input="Who?", text_format=Person)
    assert response.output_parsed == Person(name="Ada", age=36)


def test_openai_parses_what_comes_after_reasoning() -> None:
    engine = thinking_engine('<think>Who was it?</think>{"name": "Ada", "age": 36}')
    messages: Any = [{"role": "user", "content": "Who?"}]
    with listening(engine) as server, openai.OpenAI(base_url=f"{url_of(server)}/v1", api_key="none") as client:
        completion = client.chat.completions.parse(model="default", messages=messages, response_format=Person)
    message = completion.choices[0].message
    assert message.parsed == Person(name="Ada", age=36)
    assert message.reasoning_content == "Who was it?"  # type: ignore[attr-defined]


def test_openais_responses_stream_and_go_on(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", **ADD, "strict": True}]
    with client.responses.stream(model="default", input="What is 19 + 23?", tools=tools) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    call = first.output[0]
    assert call.type == "function_call"
    answer: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "42"}]
    second = client.responses.create(model="default", input=answer, tools=tools, previous_response_id=first.id)
    assert second.output_text == "It is 42."


def test_openais_completions_and_models(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="default", prompt="Hi", max_tokens=3)
    assert completion.choices[0].text == "Hel"
    assert "scripted" in {model.id for model in client.models.list()}


def test_openais_errors_are_raised_by_their_kinds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="known models"):
        client.chat.completions.create(model="nobody", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.chat.completions.create(model="default", messages=QUESTION, temperature=1e9, stream=True)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="unknown parameter: colour"):
        client.chat.completions.create(model="default", messages=QUESTION, extra_body={"colour": "red"})


def test_anthropic_calls_tools_and_goes_on(claude: anthropic.Anthropic) -> None:
    first = claude.messages.create(model="default", max_tokens=200, messages=QUESTION, tools=CLAUDE_TOOLS)
    assert first.stop_reason == "tool_use" and first.content[0].type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "42"}
    turns: Any = [*QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = claude.messages.create(model="default", max_tokens=200, messages=turns, tools=CLAUDE_TOOLS)
    assert second.content[0].type == "text" and second.content[0].text == "It is 42."


def test_anthropic_streams(claude: anthropic.Anthropic) -> None:
    options: Any = {"model": "default", "messages": QUESTION, "tools": CLAUDE_TOOLS}
    counted = claude.messages.count_tokens(**options)
    with claude.messages.stream(max_tokens=200, **options) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert "input_json" in kinds
    assert final.content[0].type == "tool_use" and final.content[0].input == {"a": 19, "b": 23}
    assert final.usage.cache_read_input_tokens is not None
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == counted.input_tokens


def test_anthropic_shows_thinking_where_it_is_asked_for() -> None:
    engine = thinking_engine("<think>Three cubed.</think>27.")
    messages: Any = ASK
    with listening(engine) as server, anthropic.Anthropic(base_url=url_of(server), api_key="none") as claude:
        with claude.messages.stream(
            model="default", max_tokens=200, messages=messages, thinking={"type": "adaptive"}
        ) as stream:
            final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]


def test_anthropics_errors_are_raised_by_their_kinds(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="known models"):
        claude.messages.create(model="nobody", max_tokens=5, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="stop"):
        claude.messages.create(model="default", max_tokens=5, messages=QUESTION, stop_sequences=[""])


def test_anthropics_runner_calls_the_tools_itself(claude: anthropic.Anthropic) -> None:
    @anthropic.beta_tool
    def add(a: int, b: int) -> str:
        """Add two integers."""
        return str(a + b)

    for is_streamed in (False, True):
        runner: Any = claude.beta.messages.tool_runner(
            model="default", max_tokens=200, messages=QUESTION, tools=[add], stream=is_streamed, thread=False
        )
        last = [one.get_final_message() if is_streamed else one for one in runner][-1]
        assert last.content[0].text == "It is 42."


def test_both_parse_and_openais_beta_does(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "Who?"}]
    completion = client.beta.chat.completions.parse(model="default", messages=messages, response_format=Person)
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)
    message = claude.messages.parse(model="default", max_tokens=200, messages=messages, output_format=Person)
    assert message.parsed_output == Person(name="Ada", age=36)


@pytest.fixture(scope="module")
def url_of_demo(demo: LoadedModel) -> Iterator[str]:
    with listening(Engine(demo, CONFIG)) as server:
        yield url_of(server)


@pytest.mark.clients
def test_openai_on_the_demo_model(url_of_demo: str) -> None:
    with openai.OpenAI(base_url=f"{url_of_demo}/v1", api_key="none", max_retries=0) as client:
        options: Any = {"model": "default", "max_tokens": 60, "temperature": 0}
        capital: Any = [{"role": "user", "content": "What is the capital of France?"}]
        options["stream_options"] = {"include_usage": True}
        with client.chat.completions.stream(messages=capital, **options) as stream:
            final = stream.get_final_completion()
        assert "Paris" in (final.choices[0].message.content or "") and final.usage is not None
        del options["stream_options"]
        called = client.chat.completions.create(messages=QUESTION, tools=TOOLS, tool_choice="required", **options)
        calls: Any = called.choices[0].message.tool_calls
        assert set(json.loads(calls[0].function.arguments)) == {"a", "b"}
        parsed = client.chat.completions.parse(messages=capital, response_format=Person, **options)
        assert isinstance(parsed.choices[0].message.parsed, Person)
        with client.responses.stream(
            model="default", input="What is the capital of France?", temperature=0
        ) as responses:
            assert "Paris" in responses.get_final_response().output_text


@pytest.mark.clients
def test_anthropic_on_the_demo_model(url_of_demo: str) -> None:
    with anthropic.Anthropic(base_url=url_of_demo, api_key="none", max_retries=0) as claude:
        options: Any = {"model": "default", "messages": QUESTION, "tools": CLAUDE_TOOLS, "tool_choice": {"type": "any"}}
        counted = claude.messages.count_tokens(**options)
        with claude.messages.stream(max_tokens=60, **options) as stream:
            final = stream.get_final_message()
    assert final.stop_reason in ("tool_use", "max_tokens")
    block = final.content[0]
    assert block.type == "tool_use" and set(block.input) == {"a", "b"}
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) == counted.input_tokens
