"""Whether a format reads what a template renders, and allows it: what is rendered is what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_agent_llm.chat.derive.probes import LAST, Call, Probing
from mlx_agent_llm.chat.output import ParsedMessage
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import control_tokens
from mlx_agent_llm.chat.tools import Tool, ToolPlan
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.errors import ConstraintError


def passes(tool_format: ToolFormat, probing: Probing) -> bool:
    """Whether the rendered calls, one and two, are read as what they are, and allowed by the grammar."""
    first = probing.probe.first
    names = probing.tokenizer.special_token_texts
    ends = {names[token] for token in probing.tokenizer.eos_token_ids if token in names}
    if ends & control_tokens((tool_format.calls.marker, *tool_format.calls.body.literals)):
        return False  # a reply would end where a call begins
    return _fits(tool_format, probing, probing.one, [first]) and (
        not probing.two or tool_format.calls.most == 1 or _fits(tool_format, probing, probing.two, [first, LAST])
    )


def _fits(tool_format: ToolFormat, probing: Probing, text: str, calls: Sequence[Call]) -> bool:
    tools = tuple(Tool(**tool["function"]) for tool in probing.probe.tools)
    thinking = thinking_of(tool_format, text)
    reply = ExpectedReply(tool_format, ToolPlan("auto", tools, tools), None, thinking)
    reader = reply.reader()
    message = ParsedMessage.of(reader.feed(text) + reader.finish())
    found = [(call.name, call.arguments) for call in message.tool_calls]
    if found != list(calls) or message.invalid_tool_calls or message.content.strip() or message.reasoning:
        return False
    forced = ExpectedReply(tool_format, ToolPlan("required", tools, tools), None, thinking)
    try:
        return all(Pushdown(one.grammar()).accepts(text) for one in (reply, forced))
    except ConstraintError:
        return False


def thinking_of(tool_format: ToolFormat, text: str) -> Thinking:
    """Whether a rendered turn begins within the reasoning that its prompt has opened."""
    marks = tool_format.reasoning
    if marks is None:
        return "none"
    return "open" if text.lstrip().startswith(marks.end) else "auto"
