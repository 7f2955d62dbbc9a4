"""Whether a format reads what a template renders, and allows it: what is rendered is what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mlx_agent_llm.chat.derive.probes import ANSWER, LAST, Call, Probing
from mlx_agent_llm.chat.output import ParsedMessage
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import control_tokens
from mlx_agent_llm.chat.tools import Tool, ToolPlan
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.errors import ConstraintError

_MODES: tuple[Literal["auto", "required"], ...] = ("auto", "required")


def passes(tool_format: ToolFormat, probing: Probing) -> bool:
    """Whether the rendered calls, one and two, and a rendered text are read as what they are, and allowed."""
    first = probing.probe.first
    names = probing.tokenizer.special_token_texts
    ends = {names[token] for token in probing.tokenizer.eos_token_ids if token in names}
    if ends & control_tokens((tool_format.calls.marker, *tool_format.calls.body.literals)):
        return False  # a reply would end where a call begins
    has_two = probing.two and tool_format.calls.most > 1
    return (
        _fits(tool_format, probing, probing.one, [first])
        and (not has_two or _fits(tool_format, probing, probing.two, [first, LAST]))
        and _fits(tool_format, probing, probing.text_lead + ANSWER + probing.text_end, [])
    )


def _fits(tool_format: ToolFormat, probing: Probing, text: str, calls: Sequence[Call]) -> bool:
    """Whether a rendered turn is read as these calls, or as the answer where there are none, and allowed."""
    tools = tuple(Tool(**tool["function"]) for tool in probing.probe.tools)
    thinking = thinking_of(tool_format, text)
    plans = [ToolPlan(mode, tools, tools) for mode in (_MODES if calls else _MODES[:1])]
    replies = [ExpectedReply(tool_format, plan, None, thinking) for plan in plans]
    reader = replies[0].reader()
    message = ParsedMessage.of(reader.feed(text) + reader.finish())
    found = [(call.name, call.arguments) for call in message.tool_calls]
    content = "" if calls else ANSWER
    if found != list(calls) or message.invalid_tool_calls or message.content.strip() != content or message.reasoning:
        return False
    try:
        return all(Pushdown(reply.grammar()).accepts(text) for reply in replies)
    except ConstraintError:
        return False


def thinking_of(tool_format: ToolFormat, text: str) -> Thinking:
    """Whether a rendered turn begins within the reasoning that its prompt has opened."""
    marks = tool_format.reasoning
    if marks is None:
        return "none"
    return "open" if text.lstrip().startswith(marks.end) else "auto"
