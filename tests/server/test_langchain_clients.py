"""LangChain's integration tests of its clients of OpenAI and Anthropic, against a server.

The demo model answers where any answer will do, scripted ones where it has to make sense.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from mlx_agent_llm import Engine
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.server.served_models import ServedModels
from mlx_agent_llm.server.service import Service
from mlx_agent_llm.server.settings import ServerSettings
from tests.integrations.langchain.test_langchain_standard import SCRIPTS, call
from tests.support.langchain_chats import merged
from tests.support.servers import CONFIG, listening_service, scripted_engine, url_of

pytestmark = [
    pytest.mark.clients,
    pytest.mark.asyncio(loop_scope="module"),  # the clients of one address share a pool of connections
    pytest.mark.filterwarnings("ignore"),  # of the clients' own making
]

JOKE = '{"setup": "Why do cats purr?", "punchline": "They are well paid."}'
ALL_SCRIPTS = {**SCRIPTS, "json": [JOKE], "call": [call("Joke", JOKE)]}


@pytest.fixture(scope="module")
def url(demo: LoadedModel) -> Iterator[str]:
    def load(name: str) -> Engine:
        return Engine(demo, CONFIG) if name == "demo" else scripted_engine(ALL_SCRIPTS[name])

    models = ServedModels({name: name for name in ["demo", *ALL_SCRIPTS]}, load)
    with listening_service(Service(models, ServerSettings())) as server:
        yield url_of(server)


class ClientTests(ChatModelIntegrationTests):
    """What holds for both clients; structured: the script of structured answers."""

    structured = "json"

    @pytest.fixture(autouse=True)
    def _server(self, url: str, request: pytest.FixtureRequest) -> None:
        name = request.function.__name__
        self._url = url
        self._model = name if name in SCRIPTS else self.structured if "structured_output" in name else "demo"
        self._max_tokens = 40 if self._model == "demo" else 400

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "another"

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self._answer("What is the capital of France?", stream)
        return self._answer("What is the capital of France?", stream)

    def _answer(self, question: str, stream: bool) -> AIMessage:
        chat = self.chat_model_class(**self.chat_model_params)
        return merged(list(chat.stream(question))) if stream else chat.invoke(question)  # type: ignore[arg-type]


class TestChatOpenAI(ClientTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "base_url": f"{self._url}/v1",
            "api_key": "none",
            "max_tokens": self._max_tokens,
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[Any]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}


class TestChatOpenAIResponses(TestChatOpenAI):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}


class TestChatAnthropic(ClientTests):
    structured = "call"

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self._model,
            "base_url": self._url,
            "api_key": "none",
            "max_tokens": self._max_tokens,
            "max_retries": 0,
        }

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[Any]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}
