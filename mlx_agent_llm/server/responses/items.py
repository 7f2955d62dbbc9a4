"""The items of OpenAI's responses, as the messages that the engine reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_agent_llm.server.api_error import invalid
from mlx_agent_llm.server.places import PlacedTurn

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


# What the engine calls by other names.
NAMES = {
    ".tool_call_id": ".call_id",
    ".id": ".call_id",
    ".function.": ".",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "enable_thinking": "reasoning.effort",
    "logprobs": "top_logprobs",
}


def read_items(value: str | Sequence[Mapping[str, Any]]) -> list[PlacedTurn]:
    """The turns of an input; reasoning, text and calls that follow each other are one turn of the assistant."""
    if isinstance(value, str):
        return [PlacedTurn({"role": "user", "content": value}, "input")]
    turns: list[PlacedTurn] = []
    for index, item in enumerate(value):
        place = f"input[{index}]"
        turn = _read_item(item, place)
        calls = (place,) if "tool_calls" in turn else ()
        if turns and _continues(turns[-1].turn, turn):
            turns[-1] = PlacedTurn(_joined(turns[-1].turn, turn), turns[-1].place, turns[-1].calls + calls)
        else:
            turns.append(PlacedTurn(turn, place, calls))
    return turns


def _read_item(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    match item.get("type", "message"):
        case "message":
            role = item.get("role")
            if role not in _ROLES:
                raise invalid(f"{place}.role={role!r} must be one of {', '.join(map(repr, _ROLES))}", place)
            return {"role": role, "content": _text_of(item.get("content"), f"{place}.content")}
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        case "function_call_output":
            output = _text_of(item.get("output"), f"{place}.output")
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
        case "reasoning":
            parts = item.get("content") or item.get("summary") or ""
            return {"role": "assistant", "content": "", "reasoning_content": _text_of(parts, f"{place}.content")}
        case kind:
            known = "message, function_call, function_call_output and reasoning"
            raise invalid(f"{place}.type={kind!r} is not supported; known types: {known}", place, "invalid_value")


def _continues(before: Mapping[str, Any], turn: Mapping[str, Any]) -> bool:
    """Whether an assistant's turn goes on: text after calls would stand before them."""
    is_assistant = before["role"] == turn["role"] == "assistant"
    begins_anew = turn["content"] and (before["content"] or before.get("tool_calls"))
    return is_assistant and not begins_anew and "reasoning_content" not in turn


def _joined(before: Mapping[str, Any], turn: Mapping[str, Any]) -> dict[str, Any]:
    calls = [*before.get("tool_calls", []), *turn.get("tool_calls", [])]
    joined = {**before, "content": before["content"] + turn["content"]}
    return joined | ({"tool_calls": calls} if calls else {})


def _text_of(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{place}={content!r:.80} must be a text or a list of parts", place, "invalid_value")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _TEXTS or not isinstance(part.get("text"), str):
            raise invalid(f"{place}[{index}].type={kind!r} is not supported: the model reads text", place)
        texts.append(part["text"])
    return "\n".join(texts)
