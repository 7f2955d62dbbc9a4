"""GLM 4.5 to 4.7: pairs of key and value between tags; 4.7 writes no line breaks between them."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax


def _calls(line_break: str) -> CallSyntax:
    tags = Tags(
        begin="<arg_key>",
        name_end="</arg_key>",
        value_begin=f"{line_break}<arg_value>",
        value_end="</arg_value>",
        after=line_break,
    )
    return CallSyntax(
        NamedCall(line_break, TaggedArguments(tags)),
        marker="<tool_call>",
        begin="<tool_call>",
        end="</tool_call>",
        separator="\n" if line_break else "",
        closing="</tool_call>",
    )


# <tool_call>f\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>\n</tool_call>
GLM4 = ToolFormat(name="glm4", signs=("<arg_key>",), calls=_calls("\n"))

# <tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>
GLM47 = ToolFormat(name="glm47", signs=("</arg_key><arg_value>",), calls=_calls(""))
