"""Granite 3: a JSON list after a mark, up to the end of the reply."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <|tool_call|>[{"name": "f", "arguments": {...}}, ...]
GRANITE = ToolFormat(
    name="granite",
    signs=("<|start_of_role|>", "<|tool_call|>"),
    calls=CallSyntax(
        JSONCall(), marker="<|tool_call|>", section_begin="<|tool_call|>[", separator=", ", section_end="]"
    ),
)
