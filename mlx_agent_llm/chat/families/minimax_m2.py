"""MiniMax M2: one block with an `invoke` for each call."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <minimax:tool_call>\n<invoke name="f">\n<parameter name="k">v</parameter>\n</invoke>\n</minimax:tool_call>
MINIMAX_M2 = ToolFormat(
    name="minimax_m2",
    signs=("<minimax:tool_call>",),
    calls=CallSyntax(
        NamedCall(
            '">\n',
            TaggedArguments(
                Tags(begin='<parameter name="', name_end='">', value_begin="", value_end="</parameter>", after="\n")
            ),
        ),
        marker="<minimax:tool_call>",
        section_begin="<minimax:tool_call>\n",
        begin='<invoke name="',
        end="</invoke>",
        separator="\n",
        section_end="\n</minimax:tool_call>",
        closing="</invoke>",
    ),
)
