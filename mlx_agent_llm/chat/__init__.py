"""Chat on top of generation: messages, tools, templates and the parsing of replies."""

from mlx_agent_llm.chat.output import ChatDelta, ChatOutput, InvalidToolCall, ToolCall, ToolCallDelta, fold_chat
from mlx_agent_llm.chat.prepare import ChatParser, PreparedChat, prepare_chat
from mlx_agent_llm.chat.tools import Tool, as_tool

__all__ = [
    "ChatDelta",
    "ChatOutput",
    "ChatParser",
    "InvalidToolCall",
    "PreparedChat",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "as_tool",
    "fold_chat",
    "prepare_chat",
]
