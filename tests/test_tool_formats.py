"""The generic format: what the grammar can produce, the parser reads; what the parser cannot read, it says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_constraints import SHARED_COMPILER, accepts, walk

from mlx_agent_llm.chat.messages import read_messages
from mlx_agent_llm.chat.output import ChatDelta, InvalidToolCall, ToolCall
from mlx_agent_llm.chat.tool_formats import GenericJSON
from mlx_agent_llm.chat.tools import Tool, ToolPlan, plan_tools
from mlx_agent_llm.constrain.spec import JSONSchema

ADD = Tool(
    "add",
    "Adds two numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "number", "minimum": 0}},
        "required": ["a", "b"],
    },
)
SAY = Tool("say", "Says it.", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
NOW = Tool("now")
TOOLS = (ADD, SAY, NOW)
ANSWER = JSONSchema({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})
FORMAT = GenericJSON()
CALL_ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2.5}}</tool_call>'
CALL_SAY = '<tool_call>{"name": "say", "arguments": {"text": "</tool_call> \\" } <tool_call>"}}</tool_call>'


class Reply:
    """What a parser made of a reply."""

    def __init__(self, deltas: list[ChatDelta]) -> None:
        self.text = "".join(delta.text for delta in deltas)
        finished = [delta.finished_call for delta in deltas if delta.finished_call is not None]
        self.calls = [call for call in finished if isinstance(call, ToolCall)]
        self.invalid = [call for call in finished if isinstance(call, InvalidToolCall)]
        self.fragments = [delta.tool_call for delta in deltas if delta.tool_call is not None]

    def without_ids(self) -> Any:
        calls = [(call.name, call.arguments_json) for call in self.calls]
        return self.text, calls, [(call.text, call.error) for call in self.invalid]


def parse(text: str | list[str], plan: ToolPlan, response: JSONSchema | None = None, cut_off: bool = False) -> Reply:
    parser = FORMAT.parser(plan, response)
    deltas = [delta for piece in ([text] if isinstance(text, str) else text) for delta in parser.feed(piece)]
    return Reply(deltas + parser.end(cut_off))


def walk_replies(plan: ToolPlan, response: JSONSchema | None, num_walks: int = 60) -> list[str]:
    constraint = FORMAT.constraint(plan, response)
    assert constraint is not None
    compiled = SHARED_COMPILER.compile(constraint)
    return [walk_with_calls(compiled.matcher(), random.Random(seed)) for seed in range(num_walks)]


def walk_with_calls(matcher: Any, rng: random.Random) -> str:
    """Walk like `walk`, but begin many free texts with a call: bytes alone would never spell the marker."""
    opening = rng.choice(["", "Hm.\n<tool_call>", "<tool_call>"]).encode()
    text = bytearray()
    for byte in opening:
        if matcher.is_finished or not matcher.accept(byte):
            break
        text.append(byte)
    return text.decode() + walk(matcher, rng, errors="replace")


def check_calls(reply: Reply, names: set[str]) -> None:
    assert not reply.invalid
    for call in reply.calls:
        assert call.name in names
        tool = next(tool for tool in TOOLS if tool.name == call.name)
        assert Draft202012Validator(tool.parameters).is_valid(json.loads(call.arguments_json))
        assert json.loads(call.arguments_json) == call.arguments


@pytest.mark.parametrize("single", [False, True])
def test_auto_gives_text_or_valid_calls_and_ends_after_them(single: bool) -> None:
    plan = plan_tools(TOOLS, "auto", parallel_tool_calls=not single)
    texts = walk_replies(plan, None)
    replies = [parse(text, plan) for text in texts]
    for text, reply in zip(texts, replies, strict=True):
        check_calls(reply, {"add", "say", "now"})
        assert bool(reply.calls) == ("<tool_call>" in text)
        assert not reply.calls or text.endswith("</tool_call>")
        assert not single or len(reply.calls) <= 1
    assert {call.name for reply in replies for call in reply.calls} == {"add", "say", "now"}
    assert any(not reply.calls for reply in replies)
    assert single or any(len(reply.calls) > 1 for reply in replies)


@pytest.mark.parametrize("response", [None, ANSWER])
@pytest.mark.parametrize("single", [False, True])
def test_required_gives_calls_and_nothing_else(single: bool, response: JSONSchema | None) -> None:
    plan = plan_tools(TOOLS, "required", parallel_tool_calls=not single)
    for text in walk_replies(plan, response):
        reply = parse(text, plan, response)
        check_calls(reply, {"add", "say", "now"})
        assert reply.text == "" and reply.calls
        assert not single or len(reply.calls) == 1


@pytest.mark.parametrize("choice", ["say", {"type": "function", "function": {"name": "say"}}])
def test_a_named_tool_is_called_exactly_once(choice: Any) -> None:
    plan = plan_tools(TOOLS, choice)
    for text in walk_replies(plan, None, 20):
        reply = parse(text, plan)
        check_calls(reply, {"say"})
        assert len(reply.calls) == 1 and reply.text == ""


def test_none_cannot_produce_the_marker_and_any_other_text_can_be_written() -> None:
    plan = plan_tools(TOOLS, "none")
    constraint = FORMAT.constraint(plan, None)
    assert constraint is not None
    assert accepts(SHARED_COMPILER, constraint, "a <tool_call > b <tool_cal")
    assert not accepts(SHARED_COMPILER, constraint, "<tool_call>")
    assert all(parse(text, plan).without_ids() == (text, [], []) for text in walk_replies(plan, None, 20))


def test_a_schema_beside_tools_means_calls_or_the_json() -> None:
    plan = plan_tools(TOOLS, "auto")
    kinds = set()
    for text in walk_replies(plan, ANSWER):
        reply = parse(text, plan, ANSWER)
        check_calls(reply, {"add", "say", "now"})
        kinds.add(bool(reply.calls))
        if not reply.calls:
            assert list(json.loads(reply.text)) == ["answer"]
    assert kinds == {True, False}


def test_a_marker_inside_the_json_answer_is_no_call() -> None:
    text = '{"answer": "<tool_call>{}</tool_call>"}'
    assert parse(text, plan_tools(TOOLS, "auto"), ANSWER).without_ids() == (text, [], [])


def test_a_schema_alone_or_with_choice_none_is_the_json_alone() -> None:
    assert FORMAT.constraint(plan_tools(()), ANSWER) == ANSWER
    assert FORMAT.constraint(plan_tools(TOOLS, "none"), ANSWER) == ANSWER
    assert FORMAT.constraint(plan_tools(()), None) is None


@pytest.mark.parametrize(
    ("choice", "text", "allowed"),
    [
        ("auto", "", True),
        ("auto", "x < y <tool", True),
        ("auto", f"text\n{CALL_ADD}\n{CALL_SAY}", True),
        ("auto", f"{CALL_ADD} and text", False),
        ("auto", "<tool_call>", False),
        ("auto", '<tool_call>{"name": "invented", "arguments": {}}</tool_call>', False),
        ("auto", '<tool_call>{"name": "now", "arguments": {"x": 1}}</tool_call>', False),
        ("auto", '<tool_call>{ "name": "now", "arguments": {}}</tool_call>', False),
        ("auto", '<tool_call>{"name": "now", "arguments": {}}</tool_call>', True),
        ("required", f"text{CALL_ADD}", False),
        ("required", "", False),
        ("required", f"{CALL_ADD}\n{CALL_ADD}", True),
        ("required", f"{CALL_ADD}\n", False),
        ("add", CALL_SAY, False),
        ("add", CALL_ADD, True),
        ("add", f"{CALL_ADD}\n{CALL_ADD}", False),
    ],
)
def test_the_grammar_of_a_tool_choice(choice: str, text: str, allowed: bool) -> None:
    constraint = FORMAT.constraint(plan_tools(TOOLS, choice), None)
    assert constraint is not None
    assert accepts(SHARED_COMPILER, constraint, text) == allowed


PIECES = st.sampled_from(
    [
        *(
            CALL_ADD,
            CALL_SAY,
            "<tool_call>",
            "</tool_call>",
            "<tool_",
            "call>",
            "<",
            "text",
            " \n",
            "\\",
            '"',
            "{",
            "}",
            "é",
        ),
        *(
            '{"name": "add", "arguments": ',
            '{"a": 1, "b": -2}',
            '{"name": "now", "arguments": {}}',
            '"x": [1, {}]',
            ",",
        ),
    ]
)
PLANS = st.sampled_from([plan_tools(TOOLS, "auto"), plan_tools(TOOLS, "required"), plan_tools(TOOLS, "none")])


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=8), plan=PLANS, data=st.data())
def test_any_split_of_a_reply_gives_the_same_result_and_loses_nothing(
    pieces: list[str], plan: ToolPlan, data: st.DataObject
) -> None:
    text = "".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    parts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = parse(text, plan)
    assert parse(parts, plan).without_ids() == whole.without_ids()
    assert parse(list(text), plan).without_ids() == whole.without_ids()
    kept = len(whole.text) + sum(len(call.text) for call in whole.invalid)
    kept += sum(len(f'<tool_call>{{"name":"{call.name}","arguments":}}</tool_call>') for call in whole.calls)
    kept += sum(len(call.arguments_json) for call in whole.calls)
    num_blanks = sum(char.isspace() for char in text)
    assert len(text) - num_blanks <= kept <= len(text)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 9))
def test_fragments_of_a_call_add_up_to_its_arguments(seed: int, size: int) -> None:
    plan = plan_tools(TOOLS, "required")
    constraint = FORMAT.constraint(plan, None)
    assert constraint is not None
    text = walk(SHARED_COMPILER.compile(constraint).matcher(), random.Random(seed))
    reply = parse([text[begin : begin + size] for begin in range(0, len(text), size)], plan)
    for index, call in enumerate(reply.calls):
        first, *others = [fragment for fragment in reply.fragments if fragment.index == index]
        assert (first.id, first.name, first.arguments) == (call.id, call.name, "")
        assert "".join(fragment.arguments for fragment in others) == call.arguments_json
        assert all(fragment.id is None and fragment.name is None for fragment in others)


def test_arguments_stream_before_the_call_is_over() -> None:
    parser = FORMAT.parser(plan_tools(TOOLS), None)
    parser.feed('Well: <tool_call>{"name": "say", "arguments":')
    (first, piece) = parser.feed(' {"text": "one')
    assert first.tool_call is not None and first.tool_call.name == "say"
    assert piece.tool_call is not None and piece.tool_call.arguments == '{"text": "one'
    (piece,) = parser.feed(" two")
    assert piece.tool_call is not None and piece.tool_call.arguments == " two"


def test_calls_and_the_text_around_them() -> None:
    reply = parse(f"Let me see.\n{CALL_ADD}\n{CALL_SAY}\n", plan_tools(TOOLS))
    assert reply.text == "Let me see.\n"
    assert [call.arguments for call in reply.calls] == [{"a": 1, "b": 2.5}, {"text": '</tool_call> " } <tool_call>'}]
    assert len({call.id for call in reply.calls}) == 2


def test_identical_calls_are_both_kept() -> None:
    reply = parse(f"{CALL_ADD}\n{CALL_ADD}", plan_tools(TOOLS))
    assert len(reply.calls) == 2 and reply.calls[0].id != reply.calls[1].id


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('<tool_call>{"name": "add", "arguments": {"a": 1, "b": ', "the token budget ended inside the call"),
        ('<tool_call>{"name": "now", "arguments": {}}', "the token budget ended inside the call"),
        ("<tool_call>", "the token budget ended inside the call"),
        ('<tool_call>{"name": "add", "arguments": {"a": "1", "b": 2}}</tool_call>', "arguments.a: '1' is not of type"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', "'b' is a required property"),
        ('<tool_call>{"name": "gone", "arguments": {}}</tool_call>', "unknown tool 'gone'; known tools: 'add'"),
        ('<tool_call>{"name": "now", "arguments": {,}}</tool_call>', "the arguments are not JSON"),
        ('<tool_call>{"name": "now", "arguments": {}, "more": 1}</tool_call>', "it must be <tool_call>"),
        ('<tool_call>{"arguments": {}, "name": "now"}</tool_call>', "it must be <tool_call>"),
        ('<tool_call>{"name": "now", "arguments": "{}"}</tool_call>', "it must be <tool_call>"),
        ('<tool_call>{"name": "now", "arguments": {}</tool_call>', "it must be <tool_call>"),
        ('<tool_call>{"name": "now", "arguments": {}}}</tool_call>', "it must be <tool_call>"),
        ("<tool_call>now()</tool_call>", "it must be <tool_call>"),
        ('<tool_call>{"name": "now", "arguments": {' + '"x":[' * 100_000, "the token budget ended"),
        ('<tool_call>{"name": "now", "arguments": {"x":' + "[" * 9999 + "]" * 9999 + "}}</tool_call>", "not JSON"),
    ],
)
def test_a_broken_call_is_kept_as_it_is_and_says_why(text: str, error: str) -> None:
    reply = parse("Hm. " + text, plan_tools(TOOLS), cut_off=True)
    assert reply.text == "Hm. " and not reply.calls
    (invalid,) = reply.invalid
    assert invalid.text == text and error in invalid.error and invalid.id


def test_a_broken_call_does_not_spoil_the_next_one() -> None:
    reply = parse(f"<tool_call>oops</tool_call>\n{CALL_ADD}", plan_tools(TOOLS))
    assert [call.name for call in reply.calls] == ["add"] and len(reply.invalid) == 1


def test_a_marker_that_is_cut_off_is_a_call_where_only_calls_may_be_and_text_elsewhere() -> None:
    assert parse("<tool_", plan_tools(TOOLS, "required"), cut_off=True).without_ids() == (
        "",
        [],
        [("<tool_", "the token budget ended inside the call")],
    )
    assert parse("a <tool_", plan_tools(TOOLS), cut_off=True).text == "a <tool_"


def test_history_is_written_as_the_model_would_write_it() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2.5}}}
    again = {"id": "2", "type": "function", "function": {"name": "say", "arguments": '{"text":"é"}'}}
    messages = read_messages(
        [
            {"role": "assistant", "content": "Hm.\n", "tool_calls": [call, again]},
            {"role": "tool", "tool_call_id": "1", "content": "3.5"},
        ]
    )
    wire = f'Hm.\n{CALL_ADD}\n<tool_call>{{"name": "say", "arguments": {{"text":"é"}}}}</tool_call>'
    assert FORMAT.template_message(messages[0]) == {"role": "assistant", "content": wire}
    assert [call.name for call in parse(wire, plan_tools(TOOLS)).calls] == ["add", "say"]
    assert FORMAT.template_message(messages[1]) == {
        "role": "user",
        "content": "<tool_response>3.5</tool_response>",
    }


def test_the_instructions_list_every_tool_and_are_always_the_same() -> None:
    text = FORMAT.instructions(TOOLS)
    assert text == FORMAT.instructions(TOOLS)
    for tool in TOOLS:
        line = next(line for line in text.splitlines() if f'"name": "{tool.name}"' in line)
        assert json.loads(line) == {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
