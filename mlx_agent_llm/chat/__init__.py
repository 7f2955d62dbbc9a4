"""Chat on top of generation: messages, tools, templates and the parsing of replies."""

from mlx_agent_llm.chat.families import TOOL_FORMATS
from mlx_agent_llm.chat.found_format import FoundFormat, found_format
from mlx_agent_llm.chat.found_format import find_tool_format as tool_format
from mlx_agent_llm.chat.output import (
    ChatDelta,
    ChatOutput,
    InvalidToolCall,
    ParsedMessage,
    ToolCall,
    ToolCallDelta,
    fold_chat,
)
from mlx_agent_llm.chat.prepare import ChatParser, PreparedChat, count_tokens, prepare_chat
from mlx_agent_llm.chat.reply.expected_reply import parse_reply
from mlx_agent_llm.chat.tools import Tool, as_tool

__all__ = [
    "TOOL_FORMATS",
    "ChatDelta",
    "ChatOutput",
    "ChatParser",
    "FoundFormat",
    "InvalidToolCall",
    "ParsedMessage",
    "PreparedChat",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "as_tool",
    "count_tokens",
    "fold_chat",
    "found_format",
    "parse_reply",
    "prepare_chat",
    "tool_format",
]
