"""Muse Glimmer: a reply is one message after another, each to a recipient: the model itself, the user, or a tool."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.arguments.tagged_arguments import TaggedArguments
from mlx_agent_llm.chat.reply.arguments.tags import Tags
from mlx_agent_llm.chat.reply.calls import NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax, Reasoning

_START, _MESSAGE = "<|start|>assistant", "<|message|>"

#  to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n<atem:parameter name="k">v</atem:parameter>\n
# </atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=...
MUSE_GLIMMER = ToolFormat(
    name="muse_glimmer",
    signs=("<atem:function_calls>",),
    reasoning=Reasoning(f"to=self{_MESSAGE}", "<|eom|>", sign="to=self<|message|>", bridge=_START, gap=0, lead=" "),
    text_begin=f" to=user{_MESSAGE}",
    calls=CallSyntax(
        NamedCall(
            f'{_MESSAGE}<atem:function_calls>\n<atem:invoke name="{{name}}">\n',
            TaggedArguments(
                Tags(
                    begin='<atem:parameter name="',
                    name_end='">',
                    value_begin="",
                    value_end="</atem:parameter>",
                    after="\n",
                )
            ),
        ),
        opening=r"^\s*to=[^<>\s]+<\|message\|>\s*<atem:function_calls>",
        begin=" to=",
        end="</atem:invoke>\n</atem:function_calls>",
        separator=f"<|eom|>{_START}",
    ),
)
