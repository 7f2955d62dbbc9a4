"""Anthropic's turns and their blocks, as the messages that the engine reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_agent_llm.server.api_error import APIError, invalid
from mlx_agent_llm.server.places import PlacedTurn

# What a coding client puts before its system prompt, with another value in each request.
_PER_REQUEST = "x-anthropic-billing-header:"


# What the engine calls by other names.
NAMES = {
    ".tool_call_id": ".tool_use_id",
    ".function.arguments": ".input",
    ".function.": ".",
    "response_format": "output_config.format",
    "stop=": "stop_sequences=",
    "enable_thinking": "thinking",
    "max_reasoning_tokens": "thinking.budget_tokens",
}


def read_history(
    system: str | Sequence[Mapping[str, Any]] | None, messages: Sequence[Mapping[str, Any]]
) -> list[PlacedTurn]:
    """The system's text and the turns; results of tools are turns of their own, in the order of their blocks.

    A turn of the system in the middle stays there. A system block that clients number for billing, one line and nothing
    else, is left out: nothing in it is for the model, and with it no two requests would have a common prefix.
    """
    history: list[PlacedTurn] = []
    if system:
        blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
        texts = [_text_of(block, f"system[{index}]") for index, block in enumerate(blocks)]
        if kept := [text for text in texts if not _is_per_request(text)]:
            history.append(PlacedTurn({"role": "system", "content": "\n\n".join(kept)}, "system"))
    for index, message in enumerate(messages):
        history += _read_turn(message, f"messages[{index}]")
    return history


def has_billing_block(system: str | Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether a system prompt has a block that is left out."""
    texts = [system] if isinstance(system, str) else [str(block.get("text")) for block in system or ()]
    return any(map(_is_per_request, texts))


def _is_per_request(text: str) -> bool:
    """A block that says more may say it to the model."""
    return text.startswith(_PER_REQUEST) and "\n" not in text.strip()


def _read_turn(message: Mapping[str, Any], place: str) -> list[PlacedTurn]:
    for name in message.keys() - {"role", "content"}:
        raise invalid(f"unknown parameter: {place}.{name}", place, "unknown_parameter")
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{place}.role={role!r} must be 'user', 'assistant' or 'system'", place)
    if isinstance(content, str):
        return [PlacedTurn({"role": role, "content": content}, place)]
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content) or not content:
        raise invalid(f"{place}.content must be a text or a list of blocks that is not empty", place)
    places = [f"{place}.content[{index}]" for index in range(len(content))]
    if role == "assistant":
        return [_read_assistant(content, place, places)]
    return list(_read_others(str(role), content, place, places))


def _read_assistant(blocks: Sequence[Mapping[str, Any]], turn_place: str, places: Sequence[str]) -> PlacedTurn:
    texts, thoughts, calls, call_places = [], [], [], []
    for block, place in zip(blocks, places, strict=True):
        match block.get("type"):
            case "thinking":
                thoughts.append(_field(block, "thinking", str, place))
            case "tool_use":
                name, arguments = _field(block, "name", str, place), _field(block, "input", dict, place)
                function = {"name": name, "arguments": arguments}
                call_places.append(place)
                calls.append({"id": _field(block, "id", str, place), "type": "function", "function": function})
            case _:
                texts.append(_text_of(block, place))
    turn: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        turn["reasoning_content"] = "".join(thoughts)
    return PlacedTurn(turn | ({"tool_calls": calls} if calls else {}), turn_place, tuple(call_places))


def _read_others(
    role: str, blocks: Sequence[Mapping[str, Any]], turn_place: str, places: Sequence[str]
) -> Iterator[PlacedTurn]:
    texts: list[str] = []
    for block, place in zip(blocks, places, strict=True):
        if block.get("type") != "tool_result":
            texts.append(_text_of(block, place))
            continue
        if texts:
            yield PlacedTurn({"role": role, "content": "\n".join(texts)}, turn_place)
            texts = []
        result = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _result_of(block, place)}
        yield PlacedTurn(result, place)
    if texts:
        yield PlacedTurn({"role": role, "content": "\n".join(texts)}, turn_place)


def _result_of(block: Mapping[str, Any], place: str) -> str:
    """A result's text; that it is an error is for the model to know."""
    content = block.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(_text_of(part, f"{place}.content[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str):
        raise invalid(f"{place}.content={content!r:.80} must be a text or a list of blocks", place)
    return f"Error: {content}" if block.get("is_error") is True else content


def _text_of(block: Any, place: str) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind != "text":
        raise invalid(f"{place}.type={kind!r} is not supported: the model reads text, and calls with their results")
    return str(_field(block, "text", str, place))


def _field(block: Mapping[str, Any], name: str, kind: type[str] | type[dict[str, Any]], place: str) -> Any:
    value = block.get(name)
    if not isinstance(value, kind):
        raise _wrong_field(place, name, value, kind)
    return value


def _wrong_field(place: str, name: str, value: Any, kind: type) -> APIError:
    words = "a text" if kind is str else "an object"
    return invalid(f"{place}.{name}={value!r:.80} must be {words}", f"{place}.{name}", "invalid_value")
