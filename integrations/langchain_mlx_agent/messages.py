"""LangChain messages as the OpenAI-style dicts that the engine takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mlx_agent.media import MEDIA, note_of
from mlx_agent_llm.errors import RequestError

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
)
_TEXTS = frozenset({"text", "text-plain"})
_CALL_BLOCKS = frozenset({"tool_use", "tool_call"})
_THOUGHTS = frozenset({"reasoning", "thinking"})  # a block has its text under the name of its type
# Where a streamed call turns out invalid, LangChain leaves it in the content as tool_call_chunk.
_UNREPEATED_BLOCKS = frozenset({"reasoning", "thinking", "redacted_thinking", "invalid_tool_call", "tool_call_chunk"})


def as_dicts(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages as role, content, name, reasoning_content, tool_calls, invalid_tool_calls and tool_call_id.

    Content is text, as a string or in blocks of type "text" and "text-plain"; images, sounds and files in results of
    tools are noted with what is known of them. Any other block is a RequestError that names messages[i].content[j].
    """
    return [_as_dict(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _as_dict(message: BaseMessage, place: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": _role(message, place), "content": _content(message, place)}
    if message.name:
        entry["name"] = message.name
    if isinstance(message, AIMessage):
        entry |= _of_assistant(message)
    if isinstance(message, ToolMessage):
        entry["tool_call_id"] = message.tool_call_id
    return entry


def _of_assistant(message: AIMessage) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if reasoning := _reasoning(message):
        entry["reasoning_content"] = reasoning
    if message.tool_calls:
        entry["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if message.invalid_tool_calls:
        entry["invalid_tool_calls"] = [{"id": call["id"], "text": _broken(call)} for call in message.invalid_tool_calls]
    return entry


def _broken(call: Mapping[str, Any]) -> str:
    """The text of an invalid call: all of it stands in args where it has no name."""
    if call["name"] is None:
        return call["args"] or ""
    return f'{{"name": {json.dumps(call["name"])}, "arguments": {call["args"] or ""}'


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


def _content(message: BaseMessage, place: str) -> str | list[str]:
    if isinstance(message.content, str):
        return message.content
    texts = [_block_text(block, f"{place}.content[{index}]", message) for index, block in enumerate(message.content)]
    return [text for text in texts if text is not None] or ""


def _block_text(block: str | dict[str, Any], place: str, message: BaseMessage) -> str | None:
    """The text of a block; None for one that is not repeated here."""
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in _TEXTS and isinstance(block.get("text"), str):
        return str(block["text"])
    if isinstance(message, ToolMessage) and kind in MEDIA:
        return note_of(block)
    if isinstance(message, AIMessage):
        call_ids = {call["id"] for call in message.tool_calls}
        if kind in _UNREPEATED_BLOCKS or (kind in _CALL_BLOCKS and block.get("id") in call_ids):
            return None  # a call stands in tool_calls too
    raise RequestError(f"{place} of type {kind!r} must be {{'type': 'text', 'text': ...}}: the model reads text only")
