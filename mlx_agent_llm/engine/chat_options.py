"""The options of a chat, the same for every way to ask for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from mlx_agent_llm.request import SamplingParams


class ReplyOptions(TypedDict, total=False):
    """What a reply may be made of, as ChatOptions explains it."""

    tools: Sequence[Any] | None
    tool_choice: Any
    parallel_tool_calls: bool
    response_format: Any
    enable_thinking: bool | str | None
    documents: Sequence[Mapping[str, Any]] | None


class ChatOptions(ReplyOptions, total=False):
    """The options of Engine.chat, achat, stream_chat and astream_chat.

    tools: Tool, OpenAI dicts, pydantic models or functions. tool_choice: "auto", "none", "required" (or "any", True), a
    tool's name or the OpenAI dict. parallel_tool_calls: whether a reply may hold several calls; True by default.
    response_format: a JSON Schema or a pydantic model; beside tools it means tool calls or this JSON. enable_thinking:
    the switch of the model's chat template, or "low", "medium" or "high" where it has levels; None leaves it as it is,
    and so does False where there is no switch. documents: dicts that the reply is to be based on, for chat templates
    that show them. max_reasoning_tokens: after so many tokens of reasoning its end is written. params: how the reply is
    sampled.
    """

    max_reasoning_tokens: int | None
    params: SamplingParams | None
