"""Mistral: a JSON list after a mark in the templates up to v7, and from v11 on name and arguments between marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONArguments, JSONCall, NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

BRACKETS = Reasoning("[THINK]", "[/THINK]", sign="[THINK]")

# [TOOL_CALLS]f[ARGS]{...}[TOOL_CALLS]g[ARGS]{...}; v11 has [CALL_ID] and an id before [ARGS]
MISTRAL = ToolFormat(
    name="mistral",
    signs=("[TOOL_CALLS]", "[ARGS]"),
    reasoning=BRACKETS,
    ids="short",
    calls=CallSyntax(
        NamedCall("[ARGS]", JSONArguments(), header_end="[ARGS]"), marker="[TOOL_CALLS]", begin="[TOOL_CALLS]"
    ),
)

# [TOOL_CALLS] [{"name": "f", "arguments": {...}}, ...]
MISTRAL_V3 = ToolFormat(
    name="mistral_v3",
    signs=("[TOOL_CALLS]",),
    reasoning=BRACKETS,
    ids="short",
    calls=CallSyntax(
        JSONCall(), marker="[TOOL_CALLS]", section_begin="[TOOL_CALLS] [", separator=", ", section_end="]"
    ),
)
