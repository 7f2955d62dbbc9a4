"""Turns of a chat as the tokens of a prompt, through the model's own template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlx_agent_llm.chat.control_tokens import Shield
from mlx_agent_llm.chat.families import ToolFormat
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.template_abilities import abilities_of
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.chat.turns import tools_as_data, tools_as_text, turns_as_data, turns_as_text, with_tools
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request.constraints import JSONSchema

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer

_SWITCHES = ("enable_thinking", "thinking")
_LEVELS = ("low", "medium", "high")
_ANY_OBJECT = {"type": "object"}


class Prompt(NamedTuple):
    """The tokens of a prompt, and whether the reply to it begins with reasoning."""

    token_ids: list[int]
    thinking: Thinking


def render_prompt(
    tokenizer: Tokenizer,
    turns: Sequence[Message],
    tools: Sequence[Tool],
    response: JSONSchema | None,
    tool_format: ToolFormat,
    *,
    enable_thinking: bool | str | None = None,
) -> Prompt:
    """The prompt, ready for the assistant's next turn.

    A template that shows tools and calls in this format gets them. For others the system turn begins with the tools, so
    that agents with the same tools share a prefix whatever their own system text says. The response format stands at
    the end of the system turn. A RequestError carries what the template itself refuses.
    """
    abilities = abilities_of(tokenizer, tool_format)
    instructions = tools_as_text(tool_format, tools) if tools and not abilities.tools else ""
    if abilities.calls is None:
        messages = turns_as_text(tool_format, turns)
    else:
        messages = turns_as_data(tool_format, turns, abilities.calls)
    messages = _with_system([instructions, _own_system(turns), _response_instructions(response)], messages)
    given = tools_as_data(tool_format, tools) if tools and abilities.tools else None
    messages = with_tools(tool_format, messages, tools) if given else messages
    options = _thinking_options(tokenizer.chat_template or "", enable_thinking)

    def render(change: Callable[[Any], Any]) -> str:
        return tokenizer.apply_chat_template(
            [
                {**message, **{key: change(value) for key, value in message.items() if key != "role"}}
                for message in messages
            ],
            tools=change(given),
            **options,
        )

    shield = Shield(tokenizer.special_token_texts.values(), [messages, given])
    text, token_ids = shield.encode(render, lambda part: tokenizer.encode(part, add_special_tokens=False))
    return Prompt(token_ids, _thinking(text, tool_format))


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


def _thinking_options(template: str, enable_thinking: bool | str | None) -> dict[str, Any]:
    """The template's own switch for thinking, or its level; without a switch False leaves everything as it is."""
    if enable_thinking is None:
        return {}
    if enable_thinking in _LEVELS:
        if not re.search(r"\breasoning_effort\b", template):
            raise RequestError(f"enable_thinking={enable_thinking!r} needs a chat template with levels of reasoning")
        return {"reasoning_effort": enable_thinking}
    if not isinstance(enable_thinking, bool):
        raise RequestError(f"enable_thinking={enable_thinking!r} must be True, False, None, 'low', 'medium' or 'high'")
    found = [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]
    if not found and enable_thinking:
        raise RequestError(
            "enable_thinking=True needs a chat template with a switch for thinking; None leaves the model as it is"
        )
    return {found[0]: enable_thinking} if found else {}


def _thinking(prompt: str, tool_format: ToolFormat) -> Thinking:
    """Whether the prompt has opened a block of reasoning, or closed it, or left that to the model."""
    if tool_format.reasoning is None:
        return "none"
    end = prompt.rstrip()
    if end.endswith(tool_format.reasoning.begin):
        return "open"
    return "none" if end.endswith(tool_format.reasoning.end) else "auto"
