"""LangChain's own integration tests: on the demo model, and on scripted ones where an answer has to make sense.

Media and recordings of network traffic are what is left out: this is a text model in the same process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_mlx_agent import ChatMLXAgent, EngineRegistry
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.testing import ScriptedModel
from tests.support.engines import assert_is_clean
from tests.support.langchain_chats import merged


def call(name: str, arguments: str) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def new_customer(prompt: str) -> str:
    name = "你好啊集团" if "你好啊集团" in prompt else "こんにちは株式会社"
    return call("unicode_customer", f'{{"customer_name": "{name}", "description": "A company"}}')


SCRIPTS: dict[str, Sequence[str] | Callable[[str], str]] = {
    "test_tool_calling": [call("magic_function", '{"input": 3}')],
    "test_tool_calling_async": [call("magic_function", '{"input": 3}')],
    "test_tool_calling_with_no_arguments": [call("magic_function_no_args", "{}")],
    "test_unicode_tool_call_integration": new_customer,
    "test_agent_loop": [call("get_weather", '{"location": "San Francisco, CA"}'), "It's sunny."],
    "test_json_mode": ['{"setup": "Why do cats purr?", "punchline": "They are well paid."}'],
    "another": ["Hello from another model."],
}


@pytest.fixture(scope="module")
def chat_class(demo: LoadedModel) -> Iterator[type[ChatMLXAgent]]:
    """Chat models whose engines are made from what is in memory: "demo" or a script's name."""
    engines: list[Engine] = []

    def load(model: str, config: EngineConfig) -> Engine:
        if model == "demo":
            engines.append(Engine(demo, config))
        else:
            fake = ScriptedModel(SCRIPTS[model])
            engines.append(Engine.from_parts(fake, fake.tokenizer, config))
        return engines[-1]

    class Chat(ChatMLXAgent):
        engines = EngineRegistry(load)

    yield Chat
    for engine in engines:
        engine.close()
        assert_is_clean(engine)


class TestChatMLXAgent(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _chat_class(self, chat_class: type[ChatMLXAgent], request: pytest.FixtureRequest) -> None:
        name = request.function.__name__
        self._class = chat_class
        self._model = name if name in SCRIPTS else "demo"
        self._max_tokens = 200 if name in SCRIPTS else 20 if "structured_output" in name else 40

    @property
    def chat_model_class(self) -> type[ChatMLXAgent]:
        return self._class

    @property
    def chat_model_params(self) -> dict[str, Any]:
        config = EngineConfig(kv_cache_tokens=16384)
        return {"model": self._model, "engine_config": config, "max_tokens": self._max_tokens}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "another"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input", "reasoning_output"], "stream": ["cache_read_input", "reasoning_output"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        first, second = (self._answer("What is the capital of France?", stream) for _ in range(2))
        assert first.usage_metadata is not None and second.usage_metadata is not None
        assert second.usage_metadata["input_token_details"]["cache_read"] >= 16
        return second

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._answer("What is the capital of France?", stream)

    def _answer(self, question: str, stream: bool) -> AIMessage:
        chat = self.chat_model_class(**self.chat_model_params)
        return merged(list(chat.stream(question))) if stream else chat.invoke(question)


@pytest.mark.usefixtures("demo")
def test_what_the_page_shows_can_be_run() -> None:
    page = (Path(__file__).parents[3] / "docs/langchain.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout and "{'a': " in done.stdout
