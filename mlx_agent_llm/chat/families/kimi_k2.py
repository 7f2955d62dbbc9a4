"""Kimi K2: calls in a section, each with an id that is its name and its number in the conversation."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONArguments, NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}<|tool_call_end|>...
KIMI_K2 = ToolFormat(
    name="kimi_k2",
    signs=("<|tool_calls_section_begin|>",),
    ids="numbered",
    calls=CallSyntax(
        NamedCall(":{index}<|tool_call_argument_begin|>", JSONArguments()),
        marker="<|tool_calls_section_begin|>",
        section_begin="<|tool_calls_section_begin|>",
        begin="<|tool_call_begin|>functions.",
        end="<|tool_call_end|>",
        section_end="<|tool_calls_section_end|>",
        closing="<|tool_call_end|>",
    ),
)
