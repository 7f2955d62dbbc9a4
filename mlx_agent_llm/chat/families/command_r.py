"""Command R7B and Command A: actions as a JSON list, and a response between marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

# <|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {...}},\n    ...\n]<|END_ACTION|>
COMMAND_R = ToolFormat(
    name="command_r",
    signs=("<|START_ACTION|>",),
    reasoning=Reasoning("<|START_THINKING|>", "<|END_THINKING|>", sign="<|START_THINKING|>", gap=0),
    text_begin="<|START_RESPONSE|>",
    text_end="<|END_RESPONSE|>",
    calls=CallSyntax(
        JSONCall(name_key="tool_name", arguments_key="parameters", index_key="tool_call_id"),
        marker="<|START_ACTION|>",
        section_begin="<|START_ACTION|>[\n    ",
        separator=",\n    ",
        section_end="\n]<|END_ACTION|>",
        closing="<|END_ACTION|>",
    ),
)
