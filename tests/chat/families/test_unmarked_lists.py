"""xLAM's lists of calls, which stand in a reply without any mark, and MiroThinker's calls to servers."""

from __future__ import annotations

import json

import pytest

from mlx_agent_llm.chat import TOOL_FORMATS, FoundFormat, ParsedMessage, Tool, found_format, prepare_chat
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.request import JSONSchema
from tests.support.chat_templates import byte_tokenizer

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})
TOOLS = (ADD, Tool("now"))
# As xLAM-2's templates: the tools in the system turn, calls as a list, and results as turns of a role of their own.
XLAM = (
    "<|im_start|>system\nMake calls in a single JSON array.\n"
    "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{{ ', ' if not loop.last }}{% endfor %}]"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = XLAM.replace("{{ m.content }}", "{{ '<think>\n\n</think>\n\n' if m.role == 'x' }}{{ m.content }}")
ONE = [("add", {"a": 1, "b": "x"})]
TWO = [*ONE, ("now", {})]


def as_list(calls: list[tuple[str, dict[str, object]]]) -> str:
    return json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])


XLAM_REPLIES = {
    "a list": (as_list(ONE), ONE, ""),
    "two calls": (as_list(TWO), TWO, ""),
    "in a fence": (f"```json\n{as_list(TWO)}\n```", TWO, ""),
    "after thoughts": (f"<think>\nhm\n</think>\n\n{as_list(ONE)}", ONE, "hm"),
    "a fence after thoughts": (f"<think>\nhm\n</think>\n\n```json\n{as_list(ONE)}\n```", ONE, "hm"),
}


@pytest.mark.parametrize(("text", "calls", "thought"), XLAM_REPLIES.values(), ids=XLAM_REPLIES)
def test_a_list_of_calls_is_found_read_and_allowed(
    text: str, calls: list[tuple[str, dict[str, object]]], thought: str
) -> None:
    found = found_format(byte_tokenizer(THINKING))
    assert (found.tool_format.name, found.source, found.warning) == ("xlam", "family", "")
    check(found, text, calls, thought)


def check(found: FoundFormat, text: str, calls: list[tuple[str, dict[str, object]]], thought: str = "") -> None:
    thinking = "auto" if found.tool_format.reasoning else "none"
    for choice in ("auto", "required"):
        reply = ExpectedReply(found.tool_format, plan_tools(TOOLS, choice), None, thinking)
        for pieces in ([text], list(text)):
            reader = reply.reader()
            message = ParsedMessage.of([delta for piece in pieces for delta in reader.feed(piece)] + reader.finish())
            assert [(one.name, one.arguments) for one in message.tool_calls] == calls
            assert (message.content, message.reasoning, message.invalid_tool_calls) == ("", thought, ())
        assert Pushdown(reply.grammar()).accepts(text)


@pytest.mark.parametrize("text", ["[1, 2]", '[{"name', "```python\nprint()\n```", "It is [not] a list."])
def test_a_list_that_holds_no_call_is_text(text: str) -> None:
    found = found_format(byte_tokenizer(XLAM))
    reply = ExpectedReply(found.tool_format, plan_tools(TOOLS, "auto"), None, "none")
    reader = reply.reader()
    message = ParsedMessage.of(reader.feed(text) + reader.finish())
    assert message.content == text and not message.tool_calls and not message.invalid_tool_calls
    assert Pushdown(reply.grammar()).accepts(text)


def test_beside_a_json_answer_calls_stand_in_a_fence() -> None:
    found = found_format(byte_tokenizer(XLAM))
    answer = JSONSchema({"type": "array", "items": {"type": "object"}})
    reply = ExpectedReply(found.tool_format, plan_tools(TOOLS, "auto"), answer, "none")
    for text, num_calls in ((as_list(ONE), 0), (f"```json\n{as_list(ONE)}\n```", 1)):
        reader = reply.reader()
        message = ParsedMessage.of(reader.feed(text) + reader.finish())
        assert len(message.tool_calls) == num_calls and Pushdown(reply.grammar()).accepts(text)


def test_a_call_to_a_server_is_read_and_allowed_whatever_the_server() -> None:
    found = FoundFormat(TOOL_FORMATS["mirothinker"], "given", found_format(byte_tokenizer(XLAM)).abilities)
    for server in ("tools", "tool-python", "search_and_scrape_webpage"):
        inner = f'<server_name>{server}</server_name>\n<tool_name>add</tool_name>\n<arguments>\n{{"a": 1, "b": "x"}}\n'
        check(found, f"<think>\nhm\n</think>\n\n<use_mcp_tool>\n{inner}</arguments>\n</use_mcp_tool>", ONE, "hm")
    assert "<server_name>tools</server_name>" in found.tool_format.example()


def test_a_template_that_no_chat_can_be_rendered_with_is_named_at_once_and_in_every_error() -> None:
    tokenizer = byte_tokenizer("<use_mcp_tool>{% for m in messages %}{% set m.seen = 1 %}{% endfor %}")
    found = found_format(tokenizer)
    assert found.warning.startswith("no chat can be rendered, the model needs another chat template: ")
    assert "cannot assign attribute" in found.warning
    with pytest.raises(RequestError, match="cannot assign attribute"):
        prepare_chat(tokenizer, [{"role": "user", "content": "hi"}], tools=TOOLS)
