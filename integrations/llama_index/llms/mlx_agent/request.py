"""The options of one call, checked and completed: what Engine.stream_chat is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.llms.mlx_agent.tools import as_tool_dict
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS, sampling_params
from mlx_agent_llm.errors import RequestError

_CHAT_OPTIONS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})


def chat_options(sampling: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a chat; None leaves one to the sampling parameters of the LLM, or to the engine.

    An unknown option is a RequestError that names it.
    """
    given = _known(options, SAMPLING_OPTIONS | _CHAT_OPTIONS)
    chat = {name: given.pop(name) for name in _CHAT_OPTIONS & given.keys()}
    if "tools" in chat:
        chat["tools"] = [as_tool_dict(tool) for tool in chat["tools"]]
    return {**chat, "params": sampling_params({**sampling, **given})}


def completion_options(sampling: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a prompt that is no chat: sampling parameters alone."""
    return {"params": sampling_params({**sampling, **_known(options, SAMPLING_OPTIONS)})}


def _known(options: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    if unknown := options.keys() - names:
        raise RequestError(f"unknown option {sorted(unknown)[0]!r}; known: {', '.join(sorted(names))}")
    return {name: value for name, value in options.items() if value is not None}
