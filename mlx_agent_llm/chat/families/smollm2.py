"""SmolLM2: its template knows no tools, but it was trained on a list of calls between two marks."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <tool_call>[{"name": "f", "arguments": {...}}, ...]</tool_call>
SMOLLM2 = ToolFormat(
    name="smollm2",
    signs=("SmolLM",),
    reasoning=None,
    calls=CallSyntax(
        JSONCall(),
        marker="<tool_call>",
        section_begin="<tool_call>[",
        separator=", ",
        section_end="]</tool_call>",
        closing="</tool_call>",
    ),
    prompt=(
        "You have access to the following tools:\n<tools>\n{tools}\n</tools>\n\n"
        "To call one or more of them, write {example} with the name of the tool and arguments of the right types. "
        "The result comes back between <tool_response> and </tool_response>."
    ),
)
