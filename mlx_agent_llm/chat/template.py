"""Turns of a chat as the tokens of a prompt, through the model's own template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.tool_formats.base import ToolFormat
from mlx_agent_llm.chat.tools import Tool
from mlx_agent_llm.constrain.leaves import write_json
from mlx_agent_llm.constrain.spec import JSONSchema

if TYPE_CHECKING:
    from mlx_agent_llm.models.tokenizer import Tokenizer


def render_prompt(
    tokenizer: Tokenizer,
    turns: Sequence[Message],
    tools: Sequence[Tool],
    response: JSONSchema | None,
    tool_format: ToolFormat,
) -> list[int]:
    """Return the prompt's tokens, ready for the assistant's next turn.

    The system turn begins with the tools, so that agents with the same tools share a prefix whatever their own system
    text says, and ends with the response format. A RequestError carries what the template itself refuses.
    """
    own = turns[0].content if turns[0].role == "system" else ""
    parts = [tool_format.instructions(tools) if tools else "", own, _response_instructions(response)]
    system = "\n\n".join(part for part in parts if part)
    others = turns[1:] if turns[0].role == "system" else turns
    messages = [{"role": "system", "content": system}] if system or len(others) < len(turns) else []
    messages += _joined([tool_format.template_message(turn) for turn in others], others)
    return tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)


def _response_instructions(response: JSONSchema | None) -> str:
    if response is None:
        return ""
    return f"Answer with JSON that fits this schema:\n{write_json(response.json_schema)}"


def _joined(messages: list[dict[str, Any]], turns: Sequence[Message]) -> list[dict[str, Any]]:
    """Put the results of calls that were made together into one turn: templates want user and assistant in turn."""
    joined: list[dict[str, Any]] = []
    for index, (message, turn) in enumerate(zip(messages, turns, strict=True)):
        if turn.role == "tool" and index and turns[index - 1].role == "tool":
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n{message['content']}"}
        else:
            joined.append(message)
    return joined
