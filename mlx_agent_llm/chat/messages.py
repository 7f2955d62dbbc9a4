"""Chat messages as they come in, checked and brought into one form; nothing about templates or tool formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from mlx_agent_llm.chat.call_ledger import CallLedger
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
_FIELDS = frozenset(
    {"role", "content", "name", "reasoning_content", "tool_calls", "invalid_tool_calls", "tool_call_id"}
)


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

    "developer" is "system". Text may come as a string or as a list of {"type": "text", "text": ...} parts, which stand
    on lines of their own, but for an assistant's, which are the pieces of one text. A `name` is accepted, and not shown
    to the model.

    A tool message answers a call of an earlier assistant message, once, unless in_order is False: a part of a
    conversation may lack that. Where calls have no ids, answers without one are theirs in order. An assistant's
    `invalid_tool_calls`, dicts of id and text, stand in its content as the text that they were, and what answers one is
    a user's turn: templates know nothing of broken calls.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise RequestError(f"messages={messages!r} must be a non-empty list of message dicts")
    ledger = CallLedger(in_order)
    read = [_read_message(message, f"messages[{index}]", ledger) for index, message in enumerate(messages)]
    return list(_with_answers_as_text(read, ledger.invalid_ids))


def _with_answers_as_text(messages: list[Message], invalid_ids: set[str]) -> Iterator[Message]:
    """The messages, with the answers of invalid calls as one user's turn after those that tools gave beside them."""
    for is_answer, run in groupby(messages, lambda message: message.role == "tool"):
        turns = list(run)
        if not is_answer:
            yield from turns
            continue
        yield from (turn for turn in turns if turn.tool_call_id not in invalid_ids)
        if answers := [turn.content for turn in turns if turn.tool_call_id in invalid_ids]:
            yield Message("user", "\n".join(f"<tool_response>{answer}</tool_response>" for answer in answers))


def _read_message(message: Any, place: str, ledger: CallLedger) -> Message:
    if not isinstance(message, Mapping):
        raise RequestError(f"{place}={message!r} must be a dict with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{place}.role={role!r} must be one of {', '.join(map(repr, _ROLES))}")
    for name, value in message.items():
        if name not in _FIELDS and value is not None:
            raise RequestError(f"{place}.{name}={value!r} is not supported; known fields: {', '.join(sorted(_FIELDS))}")
    calls = _read_calls(message, place, _ROLES[role], ledger)
    broken = _read_invalid_calls(message, place, _ROLES[role], ledger)
    content = message.get("content")
    text = "" if content is None and (calls or broken) else _read_text(content, f"{place}.content", _ROLES[role])
    answered = _read_answered_call(message, place, _ROLES[role], ledger)
    return Message(_ROLES[role], text + broken, calls, answered, _read_reasoning(message, place, _ROLES[role]))


def _read_text(content: Any, place: str, role: Role) -> str:
    if isinstance(content, str):
        return _encodable(content, place)
    if not isinstance(content, list) or not content:
        raise RequestError(f"{place}={content!r} must be a string or a non-empty list of text parts")
    parts = [_read_part(part, f"{place}[{index}]") for index, part in enumerate(content)]
    # Templates that take parts put them side by side or on lines; side by side two results of a tool become one.
    return ("" if role == "assistant" else "\n").join(parts)


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


def _read_calls(message: Mapping[str, Any], place: str, role: Role, ledger: CallLedger) -> tuple[ToolCall, ...]:
    calls = message.get("tool_calls")
    if calls is None:
        return ()
    if role != "assistant" or not isinstance(calls, list):
        raise RequestError(f"{place}.tool_calls={calls!r} must be a list, in a message of role 'assistant'")
    return tuple(_read_call(call, f"{place}.tool_calls[{index}]", ledger) for index, call in enumerate(calls))


def _read_call(call: Any, place: str, ledger: CallLedger) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{place}={call!r} must be {{'id', 'type': 'function', 'function': {{...}}}}")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"{place}.function.name={name!r} must be a non-empty string; a call without one is text")
    arguments, text = _read_arguments(function.get("arguments"), f"{place}.function.arguments")
    return ToolCall(ledger.add(call.get("id"), place), name, arguments, text)


def _read_invalid_calls(message: Mapping[str, Any], place: str, role: Role, ledger: CallLedger) -> str:
    """The texts of calls that are none."""
    calls = message.get("invalid_tool_calls") or []
    if not isinstance(calls, list) or (calls and role != "assistant"):
        raise RequestError(f"{place}.invalid_tool_calls={calls!r} must be a list, in a message of role 'assistant'")
    for index, call in enumerate(calls):
        where = f"{place}.invalid_tool_calls[{index}]"
        if not isinstance(call, Mapping) or not isinstance(call.get("text"), str):
            raise RequestError(f"{where}={call!r} must be {{'id': ..., 'text': ...}}")
        ledger.invalid_ids.add(ledger.add(call.get("id"), where))
    return _encodable("".join(call["text"] for call in calls), f"{place}.invalid_tool_calls")


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


def _read_answered_call(message: Mapping[str, Any], place: str, role: Role, ledger: CallLedger) -> str | None:
    call_id = message.get("tool_call_id")
    if role == "tool":
        return ledger.answer(call_id, place)
    if call_id is not None:
        raise RequestError(f"{place}.tool_call_id={call_id!r} is allowed in messages of role 'tool' only")
    return None
