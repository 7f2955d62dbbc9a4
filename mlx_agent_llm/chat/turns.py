"""Turns and tools as chat templates take them, and as text for templates that have no place for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, NamedTuple

from mlx_agent_llm.chat.derive.probes import Arguments
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.output import ToolCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.errors import RequestError


class _KnownCall(NamedTuple):
    """The id and the name of a call in forms that the template takes."""

    call_id: str
    name: str


def turns_as_data(
    tool_format: ToolFormat, turns: Sequence[Message], arguments: Arguments, reasoning: str = "reasoning_content"
) -> list[dict[str, Any]]:
    """The turns for a template that shows calls and results itself; `reasoning`: the key that it looks for."""
    known = _known_calls(tool_format, turns)
    messages: list[dict[str, Any]] = []
    for turn in turns:
        message = _message(turn, turn.content, reasoning) | _answered(turn, known)
        if turn.tool_calls:
            message["tool_calls"] = [
                _call_as_data(tool_format, call, known[call.id].call_id, arguments) for call in turn.tool_calls
            ]
        messages.append(message)
    return messages


def turns_with_one_system(turns: Sequence[Message]) -> list[Message]:
    """The same history for a template that shows the system at the beginning alone: its turns there are one.

    A later one is a RequestError.
    """
    leading = list(takewhile(lambda turn: turn.role == "system", turns))
    others = turns[len(leading) :]
    late = next((turn for turn in others if turn.role == "system"), None)
    if late is not None:
        raise RequestError(
            f"the model's chat template shows no system message after others, as {late.content[:80]!r}: "
            "put its text into the first one, or into a user's message"
        )
    return [*(Message("system", "\n\n".join(turn.content for turn in leading)) for _ in leading[:1]), *others]


def turns_of_one_call(turns: Sequence[Message]) -> list[Message]:
    """The same history for a template that shows one call a turn: each call with its result is a round of its own."""
    results = {turn.tool_call_id: turn for turn in turns if turn.role == "tool"}
    split: list[Message] = []
    moved: set[str] = set()
    for turn in turns:
        if len(turn.tool_calls) > 1:
            for index, call in enumerate(turn.tool_calls):
                alone = replace(turn, tool_calls=(call,))
                split.append(alone if index == 0 else replace(alone, content="", reasoning=""))
                split += [results[call.id]] if call.id in results else []
                moved.add(call.id)
        elif turn.role != "tool" or turn.tool_call_id not in moved:
            split.append(turn)
    return split


def turns_with_text_before(turns: Sequence[Message]) -> list[Message]:
    """The same history for a template that shows no text in the turn of a call: the text is a turn before it."""
    split: list[Message] = []
    for turn in turns:
        is_both = bool(turn.tool_calls and turn.content)
        split += [replace(turn, tool_calls=()), replace(turn, content="", reasoning="")] if is_both else [turn]
    return split


def turns_with_calls_as_text(
    tool_format: ToolFormat, turns: Sequence[Message], reasoning: str = "reasoning_content"
) -> list[dict[str, Any]]:
    """The turns for a template that shows results but no calls: calls after the text, as the model writes them."""
    known, num_calls = _known_calls(tool_format, turns), 0
    messages: list[dict[str, Any]] = []
    for turn in turns:
        content = turn.content + tool_format.write_calls(turn.tool_calls, num_calls)
        messages.append(_message(turn, content, reasoning) | _answered(turn, known))
        num_calls += len(turn.tool_calls)
    return messages


def turns_as_text(
    tool_format: ToolFormat, turns: Sequence[Message], reasoning: str = "reasoning_content"
) -> list[dict[str, Any]]:
    """The turns for a template that knows no tools: calls after the text, results as turns of the user.

    The results of calls that were made together are one turn: such templates want user and assistant in turn.
    """
    messages: list[dict[str, Any]] = []
    num_calls = 0
    for index, turn in enumerate(turns):
        if turn.role != "tool":
            content = turn.content + tool_format.write_calls(turn.tool_calls, num_calls)
            messages.append(_message(turn, content, reasoning))
            num_calls += len(turn.tool_calls)
            continue
        result = f"<tool_response>{turn.content}</tool_response>"
        if index and turns[index - 1].role == "tool":
            messages[-1]["content"] += f"\n{result}"
        else:
            messages.append({"role": "user", "content": result})
    return messages


def tools_as_data(tool_format: ToolFormat, tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools for a template that shows them, as OpenAI's tool dicts."""
    return [{"type": "function", "function": _function(tool_format, tool)} for tool in tools]


def tools_as_text(tool_format: ToolFormat, tools: Sequence[Tool]) -> str:
    """The tools, one JSON a line, and how to call them; the same for the same tools."""
    listed = "\n".join(write_json(_function(tool_format, tool)) for tool in tools)
    return tool_format.prompt.replace("{tools}", listed).replace("{example}", tool_format.example())


def with_tools(tool_format: ToolFormat, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The messages for a template that shows tools, with the tools where it takes them from the system turn."""
    if not tool_format.tools_in_system or not tools:
        return messages
    has_system = messages[0]["role"] == "system"
    first = messages[0] if has_system else {"role": "system", "content": ""}
    listed = [_function(tool_format, tool) for tool in tools]
    return [{**first, "tools": write_json(listed)}, *messages[has_system:]]


def _known_calls(tool_format: ToolFormat, turns: Sequence[Message]) -> dict[str, _KnownCall]:
    """The calls of a conversation, by their own ids."""
    calls = [call for turn in turns for call in turn.tool_calls]
    return {
        call.id: _KnownCall(tool_format.template_id(call, index), tool_format.write_name(call.name))
        for index, call in enumerate(calls)
    }


def _answered(turn: Message, known: Mapping[str, _KnownCall]) -> dict[str, Any]:
    """Which call the turn answers; nothing for others."""
    if turn.tool_call_id is None:
        return {}
    call = known.get(turn.tool_call_id, _KnownCall(turn.tool_call_id, ""))
    return {"tool_call_id": call.call_id, "name": call.name}


def _message(turn: Message, content: str, reasoning: str) -> dict[str, Any]:
    thought = {reasoning: turn.reasoning} if turn.reasoning else {}
    return {"role": turn.role, "content": content, **thought}


def _call_as_data(tool_format: ToolFormat, call: ToolCall, call_id: str, arguments: Arguments) -> dict[str, Any]:
    given = call.arguments_json if arguments == "texts" else call.arguments
    function = {"name": tool_format.write_name(call.name), "arguments": given}
    return {"id": call_id, "type": "function", "function": function}


def _function(tool_format: ToolFormat, tool: Tool) -> dict[str, Any]:
    name = tool_format.write_name(tool.name)
    return {"name": name, "description": tool.description, "parameters": tool.parameters}
