"""LangChain's own integration tests of the classes through a server: the same as those of an engine in the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError, ModelNotFoundError

from langchain_mlx_agent import ChatMLXAgent, MLXAgentLLM
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from tests.integrations.langchain.test_langchain_standard import SCRIPTS
from tests.integrations.langchain.test_langchain_standard import TestChatMLXAgent as _InThisProcess
from tests.support.servers import CONFIG, listening, listening_service, scripted_engine, url_of


@pytest.fixture(scope="module")
def url(demo: LoadedModel) -> Iterator[str]:
    def load(name: str) -> Engine:
        return Engine(demo, CONFIG) if name == "demo" else scripted_engine(SCRIPTS[name])

    models = ServedModels({name: name for name in ["demo", *SCRIPTS]}, load)
    with listening_service(Service(models, ServerSettings())) as server:
        yield url_of(server)


@pytest.mark.clients
class TestChatMLXAgentThroughAServer(_InThisProcess):
    @pytest.fixture(autouse=True)
    def _chat_class(self, url: str, request: pytest.FixtureRequest) -> None:  # type: ignore[override]
        name = request.function.__name__
        self._url = url
        self._model = name if name in SCRIPTS else "demo"
        self._max_tokens = 200 if name in SCRIPTS else 20 if "structured_output" in name else 40

    @property
    def chat_model_class(self) -> type[ChatMLXAgent]:
        return ChatMLXAgent

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self._model, "base_url": self._url, "max_tokens": self._max_tokens}


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatMLXAgent]:
    with listening(["Hello to you."], keys=["secret"]) as server:
        yield ChatMLXAgent(base_url=url_of(server), api_key="secret", logprobs=True)


def test_an_answer_has_all_that_one_of_this_process_has(chat: ChatMLXAgent) -> None:
    engine = scripted_engine(["Hello to you."])
    with engine:
        here = ChatMLXAgent(engine=engine, logprobs=True).invoke("Hi")
    there = chat.invoke("Hi")
    assert there.content == here.content == "Hello to you."
    assert there.response_metadata.keys() == here.response_metadata.keys()
    assert [one["token"] for one in there.response_metadata["logprobs"]["content"]] == [*"Hello to you.", ""]
    assert there.usage_metadata is not None and there.usage_metadata["output_tokens"] == 14


async def test_streams_batches_counts_and_its_profile_work(chat: ChatMLXAgent) -> None:
    assert "".join([chunk.text async for chunk in chat.astream("Hi")]) == "Hello to you."
    assert [one.text for one in await chat.abatch(["Hi"] * 3)] == ["Hello to you."] * 3
    assert chat.get_num_tokens("Hello") == 5 and chat.get_num_tokens_from_messages([]) > 0
    assert (chat.open().profile or {})["reasoning_output"] is False


def test_errors_are_langchains(chat: ChatMLXAgent) -> None:
    with pytest.raises(ContextOverflowError):
        chat.invoke("a" * 100_000)
    with pytest.raises(ModelNotFoundError, match="known models"):
        chat.invoke("Hi", model="nobody")


def test_a_completion_goes_through_the_server(chat: ChatMLXAgent) -> None:
    llm = MLXAgentLLM(base_url=chat.base_url, api_key=chat.api_key, max_tokens=5)
    assert llm.invoke("Hi") == "Hello" and "".join(llm.stream("Hi")) == "Hello"
    assert llm.generate(["a", "b"]).generations[1][0].text == "Hello"


def test_the_key_is_not_shown(chat: ChatMLXAgent) -> None:
    assert "secret" not in repr(chat) + str(chat.lc_attributes) + str(chat._identifying_params)


def test_a_server_and_an_engine_exclude_each_other() -> None:
    for kind in (ChatMLXAgent, MLXAgentLLM):
        with pytest.raises(ValueError, match="cannot be combined"):
            kind(base_url="http://localhost:1", engine_config=EngineConfig())
        with pytest.raises(ValueError, match="must be an http or https URL"):
            kind(base_url="localhost")
