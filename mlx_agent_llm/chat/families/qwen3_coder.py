"""Qwen3-Coder and Qwen 3.5: parameters between tags, texts as they are."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <tool_call>\n<function=f>\n<parameter=k>\nv\n</parameter>\n</function>\n</tool_call>
QWEN3_CODER = ToolFormat(
    name="qwen3_coder",
    signs=("<function=", "<parameter="),
    calls=CallSyntax(
        NamedCall(
            ">\n",
            TaggedArguments(
                Tags(
                    begin="<parameter=",
                    name_end=">",
                    value_begin="",
                    value_end="</parameter>",
                    padding="\n",
                    after="\n",
                ),
                python_constants=True,  # the template writes True and None
            ),
        ),
        marker="<tool_call>",
        begin="<tool_call>\n<function=",
        end="</function>\n</tool_call>",
        separator="\n",
        closing="</tool_call>",
    ),
)
