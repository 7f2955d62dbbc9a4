"""LlamaIndex's messages as the OpenAI-style dicts that the engine takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel

from llama_index.llms.mlx_agent.media import MediaBlock, note_of
from mlx_agent_llm.errors import RequestError

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "developer",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def as_dicts(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as role, content, reasoning_content, tool_calls, invalid_tool_calls and tool_call_id.

    Text comes from the TextBlocks, calls from the ToolCallBlocks and from additional_kwargs["tool_calls"], each id
    once; calls that cannot be run are those of additional_kwargs["invalid_tool_calls"], and those whose arguments are a
    text that is no JSON object. What an assistant thought is for the chat template to show, and a CachePoint asks for
    what the engine does anyway. Media in the result of a tool is noted with what is known of it. Any other block is a
    RequestError that names messages[i].blocks[j].
    """
    return [_as_dict(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _as_dict(message: ChatMessage, place: str) -> dict[str, Any]:
    if not isinstance(message, ChatMessage):
        raise RequestError(f"{place}={message!r} must be a ChatMessage")
    role = _ROLES[message.role]
    texts = [_text(block, f"{place}.blocks[{index}]", role) for index, block in enumerate(message.blocks)]
    entry: dict[str, Any] = {"role": role, "content": _joined(texts)}
    if role == "assistant":
        entry |= _of_assistant(message, place)
    if role == "tool":
        entry["tool_call_id"] = message.additional_kwargs.get("tool_call_id")
    return entry


def _joined(texts: Sequence[str | None]) -> str | list[str]:
    """The texts, which the engine joins where there are several."""
    said = [text for text in texts if text is not None]
    return said if len(said) > 1 else "".join(said)


def _of_assistant(message: ChatMessage, place: str) -> dict[str, Any]:
    thoughts = [block.content for block in message.blocks if isinstance(block, ThinkingBlock) and block.content]
    calls = _calls(message, place)
    broken = [call for call in calls if _is_broken(call["function"]["arguments"])]
    found = {
        "reasoning_content": "".join(thoughts),
        "tool_calls": [call for call in calls if call not in broken],
        "invalid_tool_calls": [
            *(message.additional_kwargs.get("invalid_tool_calls") or ()),
            *({"id": call["id"], "text": _text_of(call["function"])} for call in broken),
        ],
    }
    return {name: value for name, value in found.items() if value}


def _text(block: ContentBlock, place: str, role: str) -> str | None:
    """The text of a block; None for one that says nothing here."""
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, CachePoint) or (role == "assistant" and isinstance(block, ThinkingBlock | ToolCallBlock)):
        return None
    if role == "tool" and isinstance(block, MediaBlock):
        return note_of(block)
    raise RequestError(f"{place} of type {block.block_type!r} must be a TextBlock: the model reads text only")


def _calls(message: ChatMessage, place: str) -> list[dict[str, Any]]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = [openai_call(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks]
    known = {call["id"] for call in calls}
    others = message.additional_kwargs.get("tool_calls") or ()
    read = [_read_call(call, f"{place}.additional_kwargs['tool_calls'][{index}]") for index, call in enumerate(others)]
    return calls + [call for call in read if call["id"] not in known]


def _is_broken(arguments: Any) -> bool:
    """Whether arguments that came as text are no JSON object, as where another provider's stream broke off."""
    try:
        return isinstance(arguments, str) and not isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return True


def _text_of(function: Mapping[str, Any]) -> str:
    return f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}'


def openai_call(call_id: str | None, name: Any, arguments: Any) -> dict[str, Any]:
    """A call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _read_call(call: Any, place: str) -> dict[str, Any]:
    entry = call.model_dump() if isinstance(call, BaseModel) else call
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{place}={call!r} must be a call in OpenAI's form, with id and function")
    return openai_call(entry.get("id"), function.get("name"), function.get("arguments"))
