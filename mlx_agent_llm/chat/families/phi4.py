"""Phi-4-mini: a JSON list between two marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <|tool_call|>[{"name": "f", "arguments": {...}}, ...]<|/tool_call|>
PHI4 = ToolFormat(
    name="phi4",
    signs=("<|tool|>", "<|/tool|>"),
    tools_in_system=True,
    calls=CallSyntax(
        JSONCall(),
        marker="<|tool_call|>",
        section_begin="<|tool_call|>[",
        separator=", ",
        section_end="]<|/tool_call|>",
        closing="<|/tool_call|>",
    ),
)
