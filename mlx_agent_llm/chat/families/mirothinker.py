"""MiroThinker: calls to tools of MCP servers, a JSON object between tags."""

from __future__ import annotations

from mlx_agent_llm.chat.reply.calls import JSONArguments, NamedCall
from mlx_agent_llm.chat.reply.format import ToolFormat
from mlx_agent_llm.chat.reply.syntax import CallSyntax

# <use_mcp_tool>\n<server_name>s</server_name>\n<tool_name>f</tool_name>\n<arguments>\n{...}\n</arguments>\n
# </use_mcp_tool>
MIROTHINKER = ToolFormat(
    name="mirothinker",
    signs=("<use_mcp_tool>",),
    calls=CallSyntax(
        NamedCall("</tool_name>\n<arguments>\n", JSONArguments()),
        marker="<use_mcp_tool>",
        section_begin="<use_mcp_tool>\n",
        begin="<server_name>{server}</server_name>\n<tool_name>",
        end="\n</arguments>",
        separator="\n",
        section_end="\n</use_mcp_tool>",
        closing="</arguments>",
    ),
)
