"""One call of a chat model, checked and completed: what the engine is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_mlx_agent.messages import as_dicts
from langchain_mlx_agent.structured import response_format_of
from mlx_agent_llm import RequestError, SamplingParams

SAMPLING_OPTIONS = frozenset(field.name for field in fields(SamplingParams)) - {"n", "constraint", "logprobs"}
"""The fields of SamplingParams that a chat model or a call may set; the engine gives no logprobs in chats."""

_CHAT_OPTIONS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})
_OPTIONS = SAMPLING_OPTIONS | _CHAT_OPTIONS | {"model"}


@dataclass(frozen=True)
class ChatRequest:
    """The model that serves a call, the messages, and the options of Engine.stream_chat."""

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]


def read_request(
    messages: Sequence[BaseMessage], model: str, sampling: Mapping[str, Any], options: Mapping[str, Any]
) -> ChatRequest:
    """Complete a call's options with a chat model's name and sampling parameters; None leaves an option to those.

    An unknown option is a RequestError that names it. "stream" is LangChain's own.
    """
    given = {name: value for name, value in options.items() if value is not None and name != "stream"}
    if unknown := given.keys() - _OPTIONS:
        raise RequestError(f"unknown option {sorted(unknown)[0]!r}; known: {', '.join(sorted(_OPTIONS))}")
    chat = {name: given[name] for name in _CHAT_OPTIONS & given.keys()}
    if "tools" in chat:
        chat["tools"] = [convert_to_openai_tool(tool) for tool in chat["tools"]]
    if "response_format" in chat:
        chat["response_format"] = response_format_of(chat["response_format"])
    own = {name: given[name] for name in SAMPLING_OPTIONS & given.keys()}
    chat["params"] = sampling_params({**sampling, **own})
    return ChatRequest(given.get("model", model), as_dicts(messages), chat)


def sampling_params(values: Mapping[str, Any]) -> SamplingParams:
    """Return the parameters with SamplingParams' defaults for those that are None."""
    return SamplingParams(**{name: value for name, value in values.items() if value is not None})
