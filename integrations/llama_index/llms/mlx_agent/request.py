"""The options of one call, checked and completed: what Engine.stream_chat is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.llms.mlx_agent.tools import as_tool_dict
from mlx_agent_llm.chat.foreign_names import REASONING_OPTIONS, with_own_names
from mlx_agent_llm.chat.sampling import SAMPLING_OPTIONS, openai_sampling_params
from mlx_agent_llm.errors import RequestError

SETTINGS = SAMPLING_OPTIONS | REASONING_OPTIONS.keys() | {"logprobs", "top_logprobs", "json_mode", "strict"}
"""What an LLM or a call may set."""

_PROMPT_OPTIONS = SAMPLING_OPTIONS | {"logprobs", "top_logprobs"}
_CHAT_OPTIONS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})


def own_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by their names here; request_timeout is what LlamaIndex's other LLMs call the timeout."""
    renamed = {"timeout" if name == "request_timeout" else name: value for name, value in options.items()}
    if len(renamed) < len(options):
        raise RequestError("request_timeout and timeout mean the same: give one of them")
    return with_own_names(renamed)


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an LLM by their names here; format="json", as Ollama's LLM has it, is json_mode."""
    wanted = settings.get("format") or None
    if wanted not in (None, "json"):
        raise RequestError(f"format={wanted!r} must be 'json': a schema is a call's response_format")
    named = own_names({name: value for name, value in settings.items() if name != "format"})
    return {**named, "json_mode": True} if wanted == "json" else named


def chat_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a chat; None leaves one to the settings of the LLM, or to the engine.

    An unknown option is a RequestError that names it.
    """
    given = {**settings, **_known(options, SETTINGS | _CHAT_OPTIONS)}
    chat = {name: given[name] for name in _CHAT_OPTIONS & given.keys()}
    strict = given.get("strict")
    if "tools" in chat:
        chat["tools"] = [as_tool_dict(tool, strict) for tool in chat["tools"]]
    if given.get("json_mode") and "response_format" not in chat:
        chat["response_format"] = {"type": "json_object"}
    chat |= {REASONING_OPTIONS[name]: given[name] for name in REASONING_OPTIONS.keys() & given.keys()}
    return {**chat, "params": openai_sampling_params({name: given[name] for name in _PROMPT_OPTIONS & given.keys()})}


def completion_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a prompt that is no chat: sampling parameters alone."""
    sampling = {name: value for name, value in settings.items() if name in _PROMPT_OPTIONS}
    return {"params": openai_sampling_params({**sampling, **_known(options, _PROMPT_OPTIONS)})}


def _known(options: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    named = own_names(options)
    if named.pop("n", 1) not in (None, 1):
        raise RequestError(f"n={options['n']!r} must be 1: LlamaIndex's responses hold one answer; ask several times")
    if unknown := named.keys() - names:
        raise RequestError(f"unknown option {sorted(unknown)[0]!r}; known: {', '.join(sorted(names))}")
    return {name: value for name, value in named.items() if value is not None}
