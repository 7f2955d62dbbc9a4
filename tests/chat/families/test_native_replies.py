"""Replies as the families write them: each is read as what it says, and allowed by the grammar."""

from __future__ import annotations

import pytest

from mlx_agent_llm.chat import ParsedMessage, Tool
from mlx_agent_llm.chat.found_format import found_format
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.reasoning import Thinking
from tests.support.chat_templates import tokenizer_of
from tests.support.native_replies import FAMILIES, NativeReply, native_replies

SEARCH = Tool(
    "search",
    "",
    {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["query", "limit"],
    },
)
BOOK = Tool(
    "book",
    "",
    {
        "type": "object",
        "properties": {
            "guest": {"type": "object", "properties": {"name": {"type": "string"}, "nights": {"type": "integer"}}},
            "rooms": {"type": "array", "items": {"type": "string"}},
            "paid": {"type": "boolean"},
            "note": {"type": "string"},
        },
        "required": ["guest", "rooms", "paid", "note"],
    },
)
TOOLS = (SEARCH, BOOK)
REPLIES = native_replies()


@pytest.mark.parametrize("reply", REPLIES, ids=[f"{one.family}: {one.kind}" for one in REPLIES])
def test_a_native_reply_is_read_and_allowed(reply: NativeReply) -> None:
    tool_format = found_format(tokenizer_of(FAMILIES[reply.family].template)).tool_format
    text = reply.text
    thinking: Thinking = "none" if tool_format.reasoning is None else "auto"
    expected = ExpectedReply(tool_format, plan_tools(TOOLS, "auto"), None, thinking)
    for pieces in ([text], list(text)):
        reader = expected.reader()
        message = ParsedMessage.of([delta for piece in pieces for delta in reader.feed(piece)] + reader.finish())
        assert [(call.name, call.arguments) for call in message.tool_calls] == reply.calls
        assert (message.content.strip(), message.reasoning) == (reply.content, reply.reasoning)
        assert not message.invalid_tool_calls
    assert Pushdown(expected.grammar()).accepts(text)


def test_there_are_at_least_a_hundred_native_replies_of_forty_families() -> None:
    assert len(REPLIES) >= 100 and len(FAMILIES) >= 40
