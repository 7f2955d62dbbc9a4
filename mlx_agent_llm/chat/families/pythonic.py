"""Llama 4 and LFM2: a list of calls as Python writes them."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.literal_arguments import KeywordArguments, Literals
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

BODY = NamedCall("", KeywordArguments(Literals(quotes=('"', "'"), has_escapes=True, keys_are_quoted=True)))

# [f(a=1, b="x"), g()]
PYTHONIC = ToolFormat(
    name="pythonic",
    signs=("<|header_start|>",),
    names_are_identifiers=True,
    calls=CallSyntax(
        BODY,
        opening=r"^\s*\[\s*[A-Za-z_][A-Za-z0-9_]*\s*\(",
        section_begin="[",
        separator=", ",
        section_end="]",
    ),
)

# <|tool_call_start|>[f(a=1, b="x"), g()]<|tool_call_end|>
LFM2 = ToolFormat(
    name="lfm2",
    signs=("<|tool_list_start|>",),
    names_are_identifiers=True,
    calls=CallSyntax(
        BODY,
        marker="<|tool_call_start|>",
        section_begin="<|tool_call_start|>[",
        separator=", ",
        section_end="]<|tool_call_end|>",
        closing="<|tool_call_end|>",
    ),
)
