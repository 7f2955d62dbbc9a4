"""Chat models of LangChain over scripted models, their tools and schemas, for the tests of the integration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypedDict

import pydantic.v1
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langchain_mlx_agent import ChatMLXAgent
from mlx_agent_llm import Engine, EngineConfig
from mlx_agent_llm.testing import ScriptedModel

CONFIG = EngineConfig(kv_cache_tokens=16384, max_num_seqs=16, device="cpu")
ADD = '<tool_call>{"name": "add", "arguments": {"a": 19, "b": 23}}</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@tool
def now() -> str:
    """Tell the time."""
    return "noon"


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=150)
    mood: Literal["good", "bad"]


class PersonV1(pydantic.v1.BaseModel):
    name: str
    age: int


class PersonDict(TypedDict):
    name: str
    age: int


@contextmanager
def scripted(replies: Sequence[str] | Callable[[str], str], **parameters: Any) -> Iterator[ChatMLXAgent]:
    model = ScriptedModel(replies)
    with Engine.from_parts(model, model.tokenizer, CONFIG) as engine:
        yield ChatMLXAgent(engine=engine, **parameters)


def engine_of(chat: ChatMLXAgent) -> Engine:
    assert chat.engine is not None
    return chat.engine


def wait_until_no_block_is_used(engine: Engine) -> None:
    deadline = time.monotonic() + 60
    while engine.stats().num_used_blocks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.stats().num_used_blocks == 0


def merged(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def is_time(key: str) -> bool:
    return key in ("timings", "created_at") or key.endswith("_duration")


def said(message: AIMessage) -> tuple[Any, ...]:
    """What a message says, without the ids that every answer has of its own."""
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    metadata = {key: value for key, value in message.response_metadata.items() if not is_time(key)}
    assert message.usage_metadata is not None
    return message.content, calls, metadata, message.usage_metadata["output_tokens"]
