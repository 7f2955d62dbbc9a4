"""Turns of a chat as the tokens of a prompt, through the model's own template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlx_agent_llm.chat.control_tokens import Shield
from mlx_agent_llm.chat.derive.probes import tool_variables
from mlx_agent_llm.chat.found_format import Abilities, FoundFormat
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.chat.turns import (
    tools_as_data,
    tools_as_text,
    turns_as_data,
    turns_as_text,
    turns_of_one_call,
    turns_with_calls_as_text,
    turns_with_one_system,
    turns_with_text_before,
    with_tools,
)
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request.constraints import JSONSchema

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

_LEVELS = ("low", "medium", "high")
_ANY_OBJECT = {"type": "object"}


class Prompt(NamedTuple):
    """The tokens and the text of a prompt, and whether the reply to it begins with reasoning."""

    token_ids: list[int]
    text: str
    thinking: Thinking


def render_prompt(
    tokenizer: Tokenizer,
    turns: Sequence[Message],
    tools: Sequence[Tool],
    response: JSONSchema | None,
    found: FoundFormat,
    *,
    enable_thinking: bool | str | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
) -> Prompt:
    """The prompt, ready for the assistant's next turn.

    A template that shows tools and calls in this format gets them. For others the system turn begins with the tools, so
    that agents with the same tools share a prefix whatever their own system text says. The response format stands at
    the end of the system turn. Where the template has no such turn, the first turn of the user begins with it, and
    where it shows the system at the beginning alone, the turns of the system there are one. A RequestError carries what
    the template itself refuses, and names documents that it does not show.
    """
    _check_documents(documents)
    tool_format, abilities = found.tool_format, found.abilities
    options = _thinking_options(tokenizer.chat_template or "", abilities, enable_thinking)

    shown = turns if abilities.later_systems else turns_with_one_system(turns)

    def render(change: Callable[[Any], Any]) -> str:
        """The prompt; the change is made to what users wrote, before marks of ours are written around it."""
        own_turns = [_changed_turn(turn, change) for turn in shown]
        own_tools = [
            replace(tool, description=change(tool.description), parameters=change(tool.parameters)) for tool in tools
        ]
        instructions = tools_as_text(tool_format, own_tools) if own_tools and not abilities.tools else ""
        messages = _messages(tool_format, abilities, own_turns)
        asked = change(_response_instructions(response))
        messages = _with_system([instructions, _own_system(own_turns), asked], messages)
        messages = messages if abilities.system else _without_system(messages)
        given = tools_as_data(tool_format, own_tools) if own_tools and abilities.tools else None
        given = [] if given is None and abilities.wants_list else given
        messages = with_tools(tool_format, messages, own_tools) if given else messages
        variables: dict[str, Any] = {**options}
        if documents:
            variables["documents"] = change(list(map(dict, documents)))
        if abilities.in_variables:
            variables |= tool_variables([tool["function"] for tool in given or ()])
        return tokenizer.apply_chat_template(messages, tools=given, **variables)

    shield = Shield(
        tokenizer.special_token_texts.values(),
        [*map(_written, shown), *map(_declared, tools), _response_instructions(response), list(documents or ())],
    )
    text, token_ids = shield.encode(render, lambda part: tokenizer.encode(part, add_special_tokens=False))
    if documents:
        _check_shown(documents, text)
    return Prompt(token_ids, text, _thinking(text, tool_format))


def _check_documents(documents: Any) -> None:
    if documents is None:
        return
    if not isinstance(documents, Sequence) or isinstance(documents, str) or not documents:
        raise RequestError(f"documents={documents!r} must be None or dicts, at least one")
    for index, document in enumerate(documents):
        if not isinstance(document, Mapping) or not any(isinstance(text, str) and text for text in document.values()):
            raise RequestError(f"documents[{index}]={document!r} must be a dict with a text")


def _check_shown(documents: Sequence[Mapping[str, Any]], prompt: str) -> None:
    for index, document in enumerate(documents):
        texts = [text.strip() for text in document.values() if isinstance(text, str) and text.strip()]
        if not any(text in prompt for text in texts):
            raise RequestError(
                f"documents[{index}]: the model's chat template shows nothing of it in such a chat: "
                "put its text into a message"
            )


def _changed_turn(turn: Message, change: Callable[[Any], Any]) -> Message:
    calls = tuple(
        replace(call, arguments=change(call.arguments), arguments_json=change(call.arguments_json))
        for call in turn.tool_calls
    )
    return replace(turn, content=change(turn.content), reasoning=change(turn.reasoning), tool_calls=calls)


def _written(turn: Message) -> list[Any]:
    """What a turn holds that its author wrote."""
    arguments = [value for call in turn.tool_calls for value in (call.arguments, call.arguments_json)]
    return [turn.content, turn.reasoning, *arguments]


def _declared(tool: Tool) -> list[Any]:
    return [tool.description, tool.parameters]


def _messages(tool_format: ToolFormat, abilities: Abilities, turns: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns, with calls and results as data where the template shows them."""
    reasoning = abilities.reasoning or "reasoning_content"
    if not abilities.results:
        return turns_as_text(tool_format, turns, reasoning)
    if abilities.calls is None:
        return turns_with_calls_as_text(tool_format, turns, reasoning)
    shown = turns if abilities.two_calls else turns_of_one_call(turns)
    shown = turns_with_text_before(shown) if abilities.beside == "turn before" else shown
    messages = turns_as_data(tool_format, shown, abilities.calls, reasoning)
    if abilities.without_content:
        messages = [
            message | {"content": None} if "tool_calls" in message and not message["content"] else message
            for message in messages
        ]
    return messages


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the system's text at the beginning of the first turn of the user."""
    if messages[0]["role"] != "system":
        return messages
    system, *others = messages
    first = next((index for index, message in enumerate(others) if message["role"] == "user"), None)
    if first is None:
        raise RequestError("the model's chat template has no turn of the system: messages need one of the user")
    content = "\n\n".join(part for part in (system["content"], others[first]["content"]) if part)
    return [*others[:first], {**others[first], "content": content}, *others[first + 1 :]]


def _own_system(turns: Sequence[Message]) -> str:
    return turns[0].content if turns[0].role == "system" else ""


def _with_system(parts: Sequence[str], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a system turn of these parts, where one was given or is needed."""
    is_given = messages[0]["role"] == "system"
    system = "\n\n".join(part for part in parts if part)
    others = messages[1:] if is_given else messages
    return [{"role": "system", "content": system}, *others] if system or is_given else others


def _response_instructions(response: JSONSchema | None) -> str:
    if response is None:
        return ""
    if response.json_schema == _ANY_OBJECT:  # small models repeat a schema that says nothing
        return "Answer with a JSON object."
    return f"Answer with JSON that fits this schema:\n{write_json(response.json_schema)}"


def _thinking_options(template: str, abilities: Abilities, enable_thinking: bool | str | None) -> Mapping[str, Any]:
    """The template's own switch for thinking, or its level; without a switch False leaves everything as it is."""
    if enable_thinking is None:
        return {}
    if enable_thinking in _LEVELS:
        if not re.search(r"\breasoning_effort\b", template):
            raise RequestError(f"enable_thinking={enable_thinking!r} needs a chat template with levels of reasoning")
        return {"reasoning_effort": enable_thinking}
    if not isinstance(enable_thinking, bool):
        raise RequestError(f"enable_thinking={enable_thinking!r} must be True, False, None, 'low', 'medium' or 'high'")
    if abilities.switch is None and enable_thinking:
        raise RequestError(
            "enable_thinking=True needs a chat template that renders otherwise with it: this one does not; "
            "None leaves the model as it is"
        )
    return {} if abilities.switch is None else {abilities.switch: enable_thinking}


def _thinking(prompt: str, tool_format: ToolFormat) -> Thinking:
    """Whether the prompt has opened a block of reasoning, or closed it, or left that to the model."""
    if tool_format.reasoning is None:
        return "none"
    end = prompt.rstrip()
    if end.endswith(tool_format.reasoning.begin):
        return "open"
    return "none" if end.endswith(tool_format.reasoning.end) else "auto"
