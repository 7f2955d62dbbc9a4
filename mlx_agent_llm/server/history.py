"""What a conversation must be before it is given to the engine: every call has its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_agent_llm.errors import RequestError


def check_calls_are_answered(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise a RequestError where a turn follows calls of which a tool has not answered all."""
    unanswered: dict[str, str] = {}  # by id, where the call stands
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            unanswered.pop(str(message.get("tool_call_id")), None)
            continue
        _check_is_empty(unanswered)
        calls = message.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, Mapping) and call.get("id"):
                unanswered[str(call["id"])] = f"messages[{index}].tool_calls[{number}]"
    _check_is_empty(unanswered)


def _check_is_empty(unanswered: Mapping[str, str]) -> None:
    for call_id, place in unanswered.items():
        raise RequestError(f"{place}.id={call_id!r} has no answer: a tool's result must follow before any other turn")
