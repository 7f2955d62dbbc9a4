"""Messages as OpenAI's clients send them, in the form that the engine reads; it checks them further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What clients repeat of an answer beside its text and calls, and adds nothing to them.
_REPEATED = frozenset({"annotations", "parsed", "refusal", "audio"})


def read_history(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with functions as tools: an answer belongs to the last call of its name."""
    history: list[dict[str, Any]] = []
    open_ids: dict[str, str] = {}  # by the name of the function
    for index, message in enumerate(messages):
        turn = dict(message)
        if turn.get("role") == "assistant":
            turn = {name: value for name, value in turn.items() if name not in _REPEATED or _says_something(value)}
        if isinstance(call := turn.pop("function_call", None), Mapping) and isinstance(call.get("name"), str):
            call_id = open_ids[call["name"]] = f"function_{index}"
            turn["tool_calls"] = [{"id": call_id, "type": "function", "function": dict(call)}]
        elif call is not None:
            turn["function_call"] = call  # for the engine to refuse
        if turn.get("role") == "function":
            name = str(turn.pop("name", None))
            turn |= {"role": "tool", "tool_call_id": open_ids.pop(name, f"no call of {name!r}")}
        history.append(turn)
    return history


def _says_something(value: Any) -> bool:
    """A refusal is a text that the model would have to see."""
    return isinstance(value, str) and bool(value)
