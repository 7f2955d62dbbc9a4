"""Qwen 2.5 and 3, Hermes, SmolLM3, Granite 4: a JSON object on a line of its own between two marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>
QWEN3 = ToolFormat(
    name="qwen3",
    signs=("<tool_call>",),
    calls=CallSyntax(
        JSONCall(),
        marker="<tool_call>",
        begin="<tool_call>\n",
        end="\n</tool_call>",
        separator="\n",
        closing="</tool_call>",
    ),
)
