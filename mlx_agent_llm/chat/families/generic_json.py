"""The format for models whose template knows no tools: instructions in the system prompt, JSON between two marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <tool_call>{"name": "f", "arguments": {...}}</tool_call>, further calls after a line break
GENERIC_JSON = ToolFormat(
    name="generic_json",
    calls=CallSyntax(
        JSONCall(),
        marker="<tool_call>",
        begin="<tool_call>",
        end="</tool_call>",
        separator="\n",
        closing="</tool_call>",
    ),
    reasoning=None,
)
