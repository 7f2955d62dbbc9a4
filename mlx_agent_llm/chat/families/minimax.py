"""MiniMax M2 and M3: one block with an `invoke` for each call."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.nested_arguments import NestedArguments
from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

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

MARK = "]<]minimax[>["

# MARK<tool_call>\nMARK<invoke name="f">MARK<k>vMARK</k>MARK<l>MARK<item>wMARK</item>MARK</l>MARK</invoke>\n
# MARK</tool_call>
MINIMAX_M3 = ToolFormat(
    name="minimax_m3",
    signs=(MARK,),
    reasoning=Reasoning("<mm:think>", "</mm:think>", sign="<mm:think>"),
    calls=CallSyntax(
        NamedCall('">', NestedArguments(MARK)),
        marker=f"{MARK}<tool_call>",
        section_begin=f"{MARK}<tool_call>\n",
        begin=f'{MARK}<invoke name="',
        end=f"{MARK}</invoke>\n",
        section_end=f"{MARK}</tool_call>",
        closing=f"{MARK}</invoke>",
    ),
)
