"""MiniMax M3's arguments, tags within tags: what the schema says an element is, it is read as and written as."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_agent_llm.chat import TOOL_FORMATS, ParsedMessage, Tool, ToolCall, parse_reply
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.errors import ConstraintError, UnsupportedSchemaError

M3 = TOOL_FORMATS["minimax_m3"]
MARK = "]<]minimax[>["
TEXT, INTEGER = {"type": "string"}, {"type": "integer"}


def tool_with(schema: dict[str, Any], **options: bool) -> Tool:
    return Tool("put", "", {"type": "object", "properties": {"x": schema}, "required": ["x"]}, **options)


def reply(inner: str) -> str:
    text = f'{MARK}<tool_call>\n{MARK}<invoke name="put">{inner}{MARK}</invoke>\n{MARK}</tool_call>'
    return text.replace("[[", MARK)


def parsed(tool: Tool, text: str) -> ParsedMessage:
    whole = parse_reply(M3, text, [tool])
    reader = ExpectedReply(M3, plan_tools((tool,), "auto"), None, "none").reader()
    streamed = ParsedMessage.of([delta for char in text for delta in reader.feed(char)] + reader.finish())
    assert [one.arguments_json for one in streamed.tool_calls] == [one.arguments_json for one in whole.tool_calls]
    return whole


def allows(tool: Tool, text: str) -> bool:
    return Pushdown(ExpectedReply(M3, plan_tools((tool,), "required"), None, "none").grammar()).accepts(text)


ROOMS = {
    "type": "array",
    "items": {"type": "object", "properties": {"beds": INTEGER, "view": TEXT}, "required": ["beds"]},
}
VALUES: list[tuple[dict[str, Any], Any]] = [
    (TEXT, ""),
    (TEXT, "12"),
    (TEXT, "<a> & 'b'\n"),
    (INTEGER, 12),
    ({"type": "boolean"}, True),
    ({"type": ["string", "integer"]}, 12),
    ({"type": ["string", "integer"]}, "twelve"),
    ({"type": "array", "items": TEXT}, []),
    ({"type": "array", "items": TEXT}, ["a", "12"]),
    ({"type": "array", "items": {"type": "array", "items": INTEGER}}, [[1, 2], [], [3]]),
    ({"type": "array", "prefixItems": [TEXT, INTEGER], "items": False, "minItems": 2}, ["a", 1]),
    ({"type": ["string", "array"], "items": INTEGER}, ""),
    ({"type": ["string", "array"], "items": INTEGER}, [1]),
    (ROOMS, [{"beds": 2, "view": "sea"}, {"beds": 1}]),
    ({"type": "object", "properties": {"item": TEXT}}, {"item": "a"}),
    ({"type": "object", "properties": {"a": TEXT, "b": TEXT}}, {}),
    ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": ROOMS}}}}, {"a": {"b": []}}),
    ({}, "anything"),
    ({}, 7),
]


@pytest.mark.parametrize(("schema", "value"), VALUES, ids=[f"{index}" for index in range(len(VALUES))])
def test_a_value_is_written_allowed_and_read_back(schema: dict[str, Any], value: Any) -> None:
    tool = tool_with(schema)
    text = M3.write_calls([ToolCall("1", "put", {"x": value}, "")])
    assert [one.arguments for one in parsed(tool, text).tool_calls] == [{"x": value}]
    assert allows(tool, text)


def test_a_schema_that_refers_to_itself_is_written_to_any_depth() -> None:
    node = {"type": "object", "properties": {"name": TEXT, "below": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}
    tool = Tool(
        "put",
        "",
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x"], "$defs": {"n": node}},
    )
    value = {"name": "a", "below": [{"name": "b", "below": [{"name": "c"}]}, {}]}
    text = M3.write_calls([ToolCall("1", "put", {"x": value}, "")])
    assert [one.arguments for one in parsed(tool, text).tool_calls] == [{"x": value}] and allows(tool, text)


BROKEN = {
    "the tag of another name": "[[<x>[[<item>a[[</items>[[</x>",
    "text beside elements": "[[<x>so [[<item>a[[</item>[[</x>",
    "an unknown property": "[[<y>a[[</y>",
    "an element twice": "[[<x>[[</x>[[<x>[[</x>",
    "no end": "[[<x>[[<item>a",
    "a text": "[[<x>a[[</x>",
}


@pytest.mark.parametrize("inner", BROKEN.values(), ids=BROKEN)
def test_a_broken_call_is_kept_with_its_text_and_not_allowed(inner: str) -> None:
    tool = tool_with({"type": "array", "items": TEXT})
    message = parsed(tool, reply(inner))
    assert not message.tool_calls and len(message.invalid_tool_calls) == 1
    assert not allows(tool, reply(inner))


REFUSED = {
    "additionalProperties": {"type": "object"},
    "uniqueItems": {"type": "array", "items": INTEGER, "uniqueItems": True},
    "minProperties": {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "minProperties": 1},
}


@pytest.mark.parametrize(("keyword", "schema"), REFUSED.items(), ids=REFUSED)
def test_what_elements_cannot_say_is_refused_or_checked_afterwards(keyword: str, schema: dict[str, Any]) -> None:
    with pytest.raises(
        UnsupportedSchemaError, match=f"'{keyword}' cannot be enforced exactly: the model's tool format"
    ):
        allows(tool_with(schema), "")
    ExpectedReply(M3, plan_tools((tool_with(schema, strict=False),), "required"), None, "none").grammar()


def test_a_name_that_is_no_tag_is_refused() -> None:
    tool = Tool("put", "", {"type": "object", "properties": {"a b": TEXT}, "required": ["a b"]})
    with pytest.raises(ConstraintError, match="parameter 'a b' has characters"):
        allows(tool, "")
