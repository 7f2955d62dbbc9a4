"""Calls as the tokens of real tokenizers: what a template renders is allowed token by token, and read back."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_agent_llm.chat import ParsedMessage, found_format
from mlx_agent_llm.chat.derive.gate import thinking_of
from mlx_agent_llm.chat.messages import read_messages
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.backends import GrammarCompiler
from mlx_agent_llm.models.tokenizer import HFTokenizer
from tests.support.real_tokenizers import REAL_TOKENIZERS, real_tokenizer
from tests.support.rendered_calls import rendered_calls
from tests.support.tool_conversations import ARGUMENTS, TOOLS, UNICODE, history

CHOICES = ("auto", "required")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "llama2" else pytest.mark.long) for name in REAL_TOKENIZERS]
)
def test_the_tokens_of_rendered_calls_are_allowed_one_by_one_and_read_back(name: str) -> None:
    tokenizer = real_tokenizer(name)
    found = found_format(tokenizer)
    compiler = GrammarCompiler(
        tokenizer.token_bytes, tokenizer.vocab_size, tokenizer.eos_token_ids, tokenizer.special_token_texts
    )
    for arguments in (ARGUMENTS, UNICODE):
        calls = [("search", arguments), ("now", {"zone": "UTC"})][: 2 if found.abilities.two_calls else 1]
        text = rendered_calls(tokenizer, found, calls)
        if not text:
            text = found.tool_format.write_calls(read_messages(history(calls))[1].tool_calls)
        thinking = thinking_of(found.tool_format, text)
        replies = [ExpectedReply(found.tool_format, plan_tools(TOOLS, choice), None, thinking) for choice in CHOICES]
        token_ids = behind_a_line(tokenizer, text)
        for reply in replies:
            matcher = compiler.compile(reply.grammar()).matcher()
            assert all(map(matcher.accept, token_ids)), text
            assert matcher.accept(min(tokenizer.eos_token_ids))
        assert read(tokenizer, replies[0], token_ids) == calls


def behind_a_line(tokenizer: HFTokenizer, text: str) -> list[int]:
    """The tokens of a text as it goes on: at the beginning of all SentencePiece would put a space before it."""
    line = tokenizer.encode("\n", add_special_tokens=False)
    return tokenizer.encode("\n" + text, add_special_tokens=False)[len(line) :]


def read(tokenizer: HFTokenizer, reply: ExpectedReply, token_ids: list[int]) -> list[tuple[str, dict[str, Any]]]:
    """The calls in the tokens, with control tokens as their names."""
    names, reader = tokenizer.special_token_texts, reply.reader()
    parts = [names[one].encode() if one in names else tokenizer.token_bytes[one] for one in token_ids]
    message = ParsedMessage.of(reader.feed(b"".join(parts).decode()) + reader.finish())
    assert not message.invalid_tool_calls and not message.content.strip()
    return [(call.name, call.arguments) for call in message.tool_calls]
