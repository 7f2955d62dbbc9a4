"""LlamaIndex's class through a server."""

from collections.abc import Iterator

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llama_index.llms.mlx_agent import MLXAgentLLM
from mlx_agent_llm import EngineConfig
from mlx_agent_llm.errors import MLXAgentError
from tests.support.servers import ADD_CALL, listening, url_of


class Person(BaseModel):
    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def reply(prompt: str) -> str:
    return '{"name": "Ada", "age": 36}' if "Who" in prompt else ADD_CALL if "19" in prompt else "Hello to you."


@pytest.fixture(scope="module")
def llm() -> Iterator[MLXAgentLLM]:
    with listening(reply, keys=["secret"]) as server:
        yield MLXAgentLLM(base_url=url_of(server), api_key="secret", max_tokens=200)


async def test_chats_completions_and_streams_go_through_the_server(llm: MLXAgentLLM) -> None:
    assert llm.chat([ChatMessage("Hi")]).message.content == "Hello to you."
    assert llm.complete("Hi", formatted=True).text == "Hello to you."
    assert [one async for one in await llm.astream_chat([ChatMessage("Hi")])][-1].message.content == "Hello to you."
    assert (await llm.acomplete("Hi")).text == "Hello to you."
    assert llm.metadata.is_function_calling_model and llm.tokenize("abc") == [97, 98, 99]


def test_tools_and_objects_have_their_guarantee(llm: MLXAgentLLM) -> None:
    response = llm.chat_with_tools([FunctionTool.from_defaults(add)], "What is 19 + 23?", tool_required=True)
    assert [call.tool_kwargs for call in llm.get_tool_calls_from_response(response)] == [{"a": 19, "b": 23}]
    assert llm.structured_predict(Person, PromptTemplate("Who?")) == Person(name="Ada", age=36)


def test_errors_and_contradictions_are_told(llm: MLXAgentLLM) -> None:
    with pytest.raises(MLXAgentError, match="max_model_len"):
        llm.chat([ChatMessage("a" * 100_000)])
    with pytest.raises(ValueError, match="cannot be combined"):
        MLXAgentLLM(base_url=llm.base_url, engine_config=EngineConfig())
    assert "secret" not in repr(llm) + str(llm.to_dict())
