"""Chat messages as they come in, checked and brought into one form; nothing about templates or tool formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlx_agent_llm.chat.output import ToolCall
from mlx_agent_llm.errors import RequestError

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_FIELDS = frozenset({"role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id"})


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, the text, the calls and the reasoning of an assistant, and the call that a tool answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""


def read_messages(messages: Any, *, in_order: bool = True) -> list[Message]:
    """OpenAI-style message dicts as Messages; a RequestError names messages[i].field, value and what is allowed.

    "developer" is "system". Text may come as a string or as a list of {"type": "text", "text": ...} parts. A tool
    message answers a call of an earlier assistant message, unless in_order is False: a part of a conversation may lack
    that. A `name` is accepted, and not shown to the model.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise RequestError(f"messages={messages!r} must be a non-empty list of message dicts")
    read: list[Message] = []
    known_calls: set[str] | None = set() if in_order else None
    for index, message in enumerate(messages):
        read.append(_read_message(message, f"messages[{index}]", known_calls))
        if known_calls is not None:
            known_calls |= {call.id for call in read[-1].tool_calls}
    return read


def _read_message(message: Any, place: str, known_calls: set[str] | None) -> Message:
    if not isinstance(message, Mapping):
        raise RequestError(f"{place}={message!r} must be a dict with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{place}.role={role!r} must be one of {', '.join(map(repr, _ROLES))}")
    for name, value in message.items():
        if name not in _FIELDS and value is not None:
            raise RequestError(f"{place}.{name}={value!r} is not supported; known fields: {', '.join(sorted(_FIELDS))}")
    calls = _read_calls(message, place, _ROLES[role])
    content = message.get("content")
    text = "" if content is None and calls else _read_text(content, f"{place}.content")
    answered = _read_answered_call(message, place, _ROLES[role], known_calls)
    return Message(_ROLES[role], text, calls, answered, _read_reasoning(message, place, _ROLES[role]))


def _read_text(content: Any, place: str) -> str:
    if isinstance(content, str):
        return _encodable(content, place)
    if not isinstance(content, list) or not content:
        raise RequestError(f"{place}={content!r} must be a string or a non-empty list of text parts")
    return "".join(_read_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _read_part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return _encodable(part, place)
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError(f"{place}={part!r} must be {{'type': 'text', 'text': ...}}: only text is supported")
    return _encodable(part["text"], place)


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{place} holds a lone surrogate at index {error.start}, which is no text") from None
    return text


def _read_reasoning(message: Mapping[str, Any], place: str, role: Role) -> str:
    reasoning = message.get("reasoning_content")
    if reasoning is None:
        return ""
    if role != "assistant" or not isinstance(reasoning, str):
        raise RequestError(f"{place}.reasoning_content={reasoning!r} must be a text, in a message of role 'assistant'")
    return _encodable(reasoning, f"{place}.reasoning_content")


def _read_calls(message: Mapping[str, Any], place: str, role: Role) -> tuple[ToolCall, ...]:
    calls = message.get("tool_calls")
    if calls is None:
        return ()
    if role != "assistant" or not isinstance(calls, list):
        raise RequestError(f"{place}.tool_calls={calls!r} must be a list, in a message of role 'assistant'")
    return tuple(_read_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls))


def _read_call(call: Any, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{place}={call!r} must be {{'id', 'type': 'function', 'function': {{...}}}}")
    for name, value in (("id", call.get("id")), ("function.name", function.get("name"))):
        if not isinstance(value, str) or not value:
            raise RequestError(f"{place}.{name}={value!r} must be a non-empty string")
    arguments, text = _read_arguments(function.get("arguments"), f"{place}.function.arguments")
    return ToolCall(call["id"], function["name"], arguments, text)


def _read_arguments(arguments: Any, place: str) -> tuple[dict[str, Any], str]:
    """The arguments as a dict and as JSON text; a text that came in is kept as it is."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{place}={arguments!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"{place}={arguments!r} must be a JSON object, as text or as a dict")
    return value, text


def _read_answered_call(message: Mapping[str, Any], place: str, role: Role, known: set[str] | None) -> str | None:
    call_id = message.get("tool_call_id")
    if role != "tool":
        if call_id is not None:
            raise RequestError(f"{place}.tool_call_id={call_id!r} is allowed in messages of role 'tool' only")
        return None
    if not isinstance(call_id, str) or (known is not None and call_id not in known):
        raise RequestError(
            f"{place}.tool_call_id={call_id!r} must be the id of a call in an earlier assistant message; "
            f"known ids: {', '.join(map(repr, sorted(known or ()))) or 'none'}"
        )
    return call_id
