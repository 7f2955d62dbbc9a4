"""LangChain messages as the OpenAI-style dicts that the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from mlx_agent_llm.errors import RequestError

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
)
_CALL_BLOCKS = frozenset({"tool_use", "tool_call"})
_THOUGHTS = frozenset({"reasoning", "thinking"})  # a block has its text under the name of its type
# Where a streamed call turns out invalid, LangChain leaves it in the content as tool_call_chunk.
_UNREPEATED_BLOCKS = frozenset({"reasoning", "thinking", "redacted_thinking", "invalid_tool_call", "tool_call_chunk"})


def as_dicts(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages as role, content, name, reasoning_content, tool_calls and tool_call_id.

    Content is text, as a string or in blocks of type "text"; any other block is a RequestError that names
    messages[i].content[j]. An assistant's invalid calls are not repeated to it.
    """
    return [_as_dict(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _as_dict(message: BaseMessage, place: str) -> dict[str, Any]:
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    entry: dict[str, Any] = {
        "role": _role(message, place),
        "content": _text(message, place, {call["id"] for call in calls}),
    }
    if isinstance(message, AIMessage) and (reasoning := _reasoning(message)):
        entry["reasoning_content"] = reasoning
    if message.name:
        entry["name"] = message.name
    if calls:
        entry["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
            for call in calls
        ]
    if isinstance(message, ToolMessage):
        entry["tool_call_id"] = message.tool_call_id
    return entry


def _role(message: BaseMessage, place: str) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise RequestError(f"{place} of type {message.type!r} must be a system, human, ai, tool or chat message")


def _reasoning(message: AIMessage) -> str:
    """What was thought before the answer; the chat template decides what of it is shown again."""
    blocks = message.content if isinstance(message.content, list) else []
    thoughts = [block.get(block["type"]) for block in blocks if isinstance(block, dict) and block["type"] in _THOUGHTS]
    given = message.additional_kwargs.get("reasoning_content")
    return "".join(thought for thought in (thoughts or [given]) if isinstance(thought, str))


def _text(message: BaseMessage, place: str, call_ids: set[str | None]) -> str:
    if isinstance(message.content, str):
        return message.content
    is_assistant = isinstance(message, AIMessage)
    return "".join(
        _block_text(block, f"{place}.content[{index}]", is_assistant, call_ids)
        for index, block in enumerate(message.content)
    )


def _block_text(block: str | dict[str, Any], place: str, is_assistant: bool, call_ids: set[str | None]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if is_assistant and (kind in _UNREPEATED_BLOCKS or (kind in _CALL_BLOCKS and block.get("id") in call_ids)):
        return ""  # a call stands in tool_calls too
    raise RequestError(f"{place} of type {kind!r} must be {{'type': 'text', 'text': ...}}: the model reads text only")
