"""xLAM: a reply that is a JSON list of calls without any mark, or in a fence of code."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

_FENCED = CallSyntax(
    JSONCall(), marker="```json", section_begin="```json\n[", separator=", ", section_end="]\n```", closing="```"
)

# [{"name": "f", "arguments": {...}}, ...]
XLAM = ToolFormat(
    name="xlam",
    signs=("calls in a single JSON array",),
    calls=CallSyntax(
        JSONCall(),
        opening=r'^\s*(```(json)?\s*)?\[\s*\{\s*("type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"',
        around=(("```json", "```"), ("```", "```")),
        section_begin="[",
        separator=", ",
        section_end="]",
        others=(_FENCED,),
    ),
    # A JSON answer could look like a list of calls; in a fence nothing else is meant.
    calls_beside_json=_FENCED,
)
