"""A pytest plugin for LangChain's and LangGraph's own tests of agents: what stands for a model there is ChatMLXAgent.

It writes what those fakes would say, through the engine and its grammar, with the ids of the script. It runs in a
process of its own, in which `tests` is the other package's folder: nothing of ours is imported from there.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import langchain_core.language_models
import pytest
from langchain_core.language_models import BaseChatModel, fake_chat_models
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import TypeAdapter

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine, EngineConfig, ToolCall
from mlx_agent_llm.testing import ScriptedModel

CONFIG = EngineConfig(kv_cache_tokens=65536, max_num_seqs=16, device="cpu", seed=1)
# What those suites import of other packages, for tests that are not about agents.
OTHERS = {
    "langchain_openai": ["AzureChatOpenAI", "ChatOpenAI"],
    "psycopg": ["AsyncConnection", "Connection"],
    "psycopg_pool": ["AsyncConnectionPool", "ConnectionPool"],
    "langgraph.checkpoint.postgres": ["PostgresSaver"],
    "langgraph.checkpoint.postgres.aio": ["AsyncPostgresSaver"],
    "langgraph.checkpoint.sqlite": ["SqliteSaver"],
    "langgraph.checkpoint.sqlite.aio": ["AsyncSqliteSaver"],
    "langgraph.store.postgres": ["AsyncPostgresStore", "PostgresStore"],
}

_script: list[AIMessage] = []


@cache
def scripted_engine() -> Engine:
    """One engine for all models of a suite."""
    model = ScriptedModel(lambda prompt: _written(_script[int(re.findall(r"\[answer (\d+)\]", prompt)[-1])]))
    return Engine.from_parts(model, model.tokenizer, CONFIG)


class ScriptedChat(ChatMLXAgent):
    """A chat model that wants to say the next message of a script, whose number ends the prompt."""

    def __init__(self, **fields: Any) -> None:
        is_its_own = type(self)._generate is not ScriptedChat._generate
        own = {"engine": scripted_engine(), "max_tokens": 4000, "disable_streaming": is_its_own}
        super().__init__(**{**own, **fields})

    def next_message(self, messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        raise NotImplementedError

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said = _as_asked(self.next_message(messages, kwargs), kwargs)
        return _with_ids(super()._generate(_numbered(messages, said), *args, **kwargs), said)

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if type(self)._generate is not ScriptedChat._generate:
            return await BaseChatModel._agenerate(self, messages, *args, **kwargs)
        said = _as_asked(self.next_message(messages, kwargs), kwargs)
        return _with_ids(await super()._agenerate(_numbered(messages, said), *args, **kwargs), said)

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        said = _as_asked(self.next_message(messages, kwargs), kwargs)
        ids = [call["id"] for call in said.tool_calls]
        for chunk in super()._stream(_numbered(messages, said), *args, **kwargs):
            yield _chunk_with_ids(chunk, said, ids)

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        said = _as_asked(self.next_message(messages, kwargs), kwargs)
        ids = [call["id"] for call in said.tool_calls]
        async for chunk in super()._astream(_numbered(messages, said), *args, **kwargs):
            yield _chunk_with_ids(chunk, said, ids)


class FakeToolCallingModel(ScriptedChat):
    """Calls what tool_calls lists, turn for turn, beside the texts of the conversation."""

    tool_calls: list[list[Any]] | None = None
    structured_response: Any = None
    index: int = 0
    tool_style: str = "openai"

    def next_message(self, messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        turns, wants_value = self.tool_calls or [[]], "response_format" in options
        calls = turns[self.index % len(turns)] if self.index < len(turns) or not wants_value else []
        said = AIMessage("-".join(message.text for message in messages), tool_calls=calls, id=str(self.index))
        if wants_value and not calls:
            value = TypeAdapter(Any).dump_python(self.structured_response, mode="json")
            said = AIMessage(json.dumps(value), id=str(self.index))
        self.index += not wants_value or bool(options.get("tools"))  # a value alone is no turn of the script
        return said


class GenericFakeChatModel(ScriptedChat):
    """Says one message after the other."""

    messages: Iterator[AIMessage | str]

    def next_message(self, messages: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        message = next(self.messages)
        return AIMessage(message) if isinstance(message, str) else message


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Put the classes where those tests import their fakes from."""
    for module, names in OTHERS.items():
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, object)
    for place in (fake_chat_models, langchain_core.language_models):
        place.GenericFakeChatModel = GenericFakeChatModel  # type: ignore[misc,assignment]
    for module in ("tests.unit_tests.agents.model", "tests.model"):
        if Path(*module.split(".")).with_suffix(".py").exists():
            importlib.import_module(module).FakeToolCallingModel = FakeToolCallingModel


def pytest_unconfigure() -> None:
    """Stop what was started."""
    if scripted_engine.cache_info().currsize:
        scripted_engine().close()


def _numbered(messages: Sequence[BaseMessage], said: AIMessage) -> list[BaseMessage]:
    """The messages with the number of what is said to them; an empty list is the engine's to refuse."""
    if not messages:
        return []
    *before, last = messages
    _script.append(said)
    parts = [last.content] if isinstance(last.content, str) else last.content
    return [*before, last.model_copy(update={"content": [*parts, f"[answer {len(_script) - 1}]"]})]


def _as_asked(said: AIMessage, options: dict[str, Any]) -> AIMessage:
    """What is said without a text where a call has to come, and a call as the value where a format is asked for."""
    if options.get("tool_choice") not in (None, "auto", "none"):
        return said.model_copy(update={"content": ""})
    if "response_format" in options and not options.get("tools") and said.tool_calls:
        return AIMessage(json.dumps(said.tool_calls[0]["args"]), id=said.id)
    return said


def _written(said: AIMessage) -> str:
    calls = [ToolCall("", call["name"], call["args"], "") for call in said.tool_calls]
    return str(said.text) + scripted_engine().tool_format.tool_format.write_calls(calls)


def _with_ids(result: ChatResult, said: AIMessage) -> ChatResult:
    """The result with the ids of the script, and without usage and metadata, which those fakes do not have."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    message.id, message.response_metadata, message.usage_metadata = said.id, {}, None
    for call, wanted in zip(message.tool_calls, said.tool_calls, strict=False):
        call["id"] = wanted["id"]
    result.llm_output = None
    return result


def _chunk_with_ids(chunk: ChatGenerationChunk, said: AIMessage, ids: list[Any]) -> ChatGenerationChunk:
    """ids: those of the calls that have not begun yet."""
    message: Any = chunk.message
    message.id = said.id
    for call in message.tool_call_chunks:
        if call["id"] is not None and ids:
            call["id"] = ids.pop(0)
    return type(chunk)(message=type(message)(**{**message.model_dump(), "tool_calls": [], "invalid_tool_calls": []}))
