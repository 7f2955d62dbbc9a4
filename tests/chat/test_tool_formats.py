"""Every tool format: what a template renders and a grammar produces, the parser reads; what it cannot, it says."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mlx_agent_llm.chat import TOOL_FORMATS, ParsedMessage, Tool, ToolCall, parse_reply
from mlx_agent_llm.chat.families import ToolFormat
from mlx_agent_llm.chat.families.gemma import FUNCTIONGEMMA, GEMMA4
from mlx_agent_llm.chat.found_format import find_tool_format, found_format
from mlx_agent_llm.chat.messages import Message
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply, make_reader
from mlx_agent_llm.chat.reply.syntax import MAX_CALLS
from mlx_agent_llm.chat.template import render_prompt
from mlx_agent_llm.chat.tools import ToolPlan, plan_tools
from mlx_agent_llm.chat.turns import tools_as_text
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.errors import ConstraintError, RequestError, ToolChoiceError
from mlx_agent_llm.request.constraints import JSONSchema
from tests.support.random_texts import RandomTexts
from tests.support.search import examples
from tests.support.tool_templates import TemplateTokenizer, template_of

USE = Tool(
    "use",
    "Uses everything.",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "flag": {"type": ["boolean", "null"]},
            "items": {"type": "array", "items": {"type": "string"}},
            "nested": {
                "type": "object",
                "properties": {"inner": {"type": "string"}, "Number": {"type": "number"}, "on": {"type": "boolean"}},
            },
            "either": {"type": ["string", "integer"]},
        },
        "required": ["text"],
    },
)
ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
NOW = Tool("now")
TOOLS = (USE, ADD, NOW)
ANSWER = JSONSchema({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})
NAMES = sorted(TOOL_FORMATS)
FREE: tuple[Thinking, ...] = ("none", "auto", "open")
every_format = pytest.mark.parametrize("name", NAMES)

MARKS = "</tool_call> <tool_call> [TOOL_CALLS] ``` </think> <|end|> </function> <parameter= null 12 True \\n \\u00e9"
PIECES = st.sampled_from([*"\"'\\\n{}[](),:= <é😀", *MARKS.split()])
TEXTS = st.text(max_size=8) | st.lists(PIECES, max_size=6).map("".join)
NUMBERS = st.decimals(-(10**6), 10**6, places=3).map(float) | st.integers(-(10**12), 10**12)
ARGUMENTS = st.fixed_dictionaries(
    {"text": TEXTS},
    optional={
        "count": st.integers(-(10**12), 10**12),
        "flag": st.booleans() | st.none(),
        "items": st.lists(TEXTS, max_size=3),
        "nested": st.fixed_dictionaries({}, optional={"inner": TEXTS, "Number": NUMBERS, "on": st.booleans()}),
        "either": TEXTS | st.integers(-99, 99),
    },
)
# What a format that writes texts as they are cannot write: the mark that ends a text.
UNWRITABLE = {
    "qwen3_coder": "</parameter>",
    "minimax_m2": "</parameter>",
    "minimax_m3": "]<]minimax[>[",
    "muse_glimmer": "</atem:parameter>",
    "glm4": "</arg_value>",
    "glm47": "</arg_value>",
    "functiongemma": "<escape>",
    "gemma4": '<|"|>',
}
RAW = ("qwen3_coder", "minimax_m2", "minimax_m3", "muse_glimmer", "glm4", "glm47")
BESIDE_JSON = tuple(name for name in RAW if name != "minimax_m3")  # their structures are JSON


def call(tool: Tool, arguments: dict[str, Any], call_id: str = "call_1") -> ToolCall:
    ordered = in_declared_order(tool.parameters, arguments)
    return ToolCall(call_id, tool.name, ordered, json.dumps(ordered, ensure_ascii=False))


def in_declared_order(schema: dict[str, Any], value: Any) -> Any:
    properties = schema.get("properties")
    if properties is None:
        return value
    return {name: in_declared_order(properties[name], value[name]) for name in properties if name in value}


def wire(name: str, calls: list[ToolCall], content: str = "", reasoning: str = "") -> str:
    """An assistant's turn as the template of the family renders it."""
    tokenizer = TemplateTokenizer.of(name)
    turns = [
        Message("user", "x"),
        Message("assistant", content, tuple(calls), reasoning=reasoning),
        Message("user", "y"),
    ]
    prompt = render_prompt(tokenizer, turns, TOOLS, None, found_format(tokenizer))
    return tokenizer.show(prompt.token_ids).split("<|im_start|>assistant\n")[1].split("<|im_end|>")[0]


def plain(calls: list[ToolCall] | tuple[ToolCall, ...]) -> list[tuple[str, dict[str, Any]]]:
    return [(one.name, one.arguments) for one in calls]


@cache
def pushdown(name: str, choice: str, thinking: Thinking = "none", with_answer: bool = False) -> Pushdown:
    plan = plan_tools(TOOLS, choice)
    return Pushdown(ExpectedReply(TOOL_FORMATS[name], plan, ANSWER if with_answer else None, thinking).grammar())


def is_writable(name: str, arguments: Any) -> bool:
    """Whether a format can write these texts, and read them back as what they are."""
    text = json.dumps(arguments, ensure_ascii=False)
    mark = json.dumps(UNWRITABLE.get(name, "\ud800"), ensure_ascii=False)[1:-1]
    either = arguments.get("either")
    if name == "minimax_m3" and None in arguments.values():
        return False  # its template leaves them out
    if name in RAW and isinstance(either, str):
        return mark not in text and not looks_like_a_value(either)
    return mark not in text


def looks_like_a_value(text: str) -> bool:
    return text.strip(" \t\n\r")[:1] in tuple("{[-0123456789.") or text.strip(" \t\n\r") in (
        "null",
        "true",
        "false",
        "True",
        "None",
    )


# ---- templates, parser and grammar say the same


@every_format
@settings(max_examples=examples(20))
@given(several=st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_what_a_template_renders_is_read_back_and_allowed(name: str, several: list[dict[str, Any]]) -> None:
    several = [arguments if is_writable(name, arguments) else {"text": "x"} for arguments in several]
    calls = [call(USE, arguments) for arguments in several][: TOOL_FORMATS[name].calls.most]
    text = wire(name, calls)
    parsed = parse_reply(TOOL_FORMATS[name], text, TOOLS)
    assert plain(parsed.tool_calls) == plain(calls)
    assert parsed.content == "" and not parsed.invalid_tool_calls
    assert pushdown(name, "required").accepts(text)


@every_format
def test_ten_identical_calls_are_ten_calls(name: str) -> None:
    calls = [call(ADD, {"a": 1}, f"call_{index}") for index in range(10)][: TOOL_FORMATS[name].calls.most]
    parsed = parse_reply(TOOL_FORMATS[name], wire(name, calls), TOOLS)
    assert plain(parsed.tool_calls) == plain(calls)
    assert len({one.id for one in parsed.tool_calls}) == len(calls)


@every_format
def test_reasoning_and_text_are_told_from_calls(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    content = "" if tool_format.text_begin or tool_format.calls.opening else "Let me see."
    reasoning = "I need\n<tool_call> it" if tool_format.reasoning else ""
    parsed = parse_reply(tool_format, wire(name, [call(NOW, {})], content, reasoning), TOOLS)
    assert (parsed.reasoning, parsed.content, plain(parsed.tool_calls)) == (reasoning, content, [("now", {})])


@every_format
@pytest.mark.parametrize("choice", ["auto", "required", "use"])
def test_whatever_the_grammar_produces_is_read(name: str, choice: str) -> None:
    tool_format, plan = TOOL_FORMATS[name], plan_tools(TOOLS, choice)
    thinking: Thinking = "auto" if tool_format.reasoning else "none"
    texts = RandomTexts(ExpectedReply(tool_format, plan, None, thinking).grammar(), random.Random(name + choice))
    check_random_texts(texts, 40, tool_format, plan, None, thinking)


@every_format
def test_calls_or_the_answer_are_told_apart(name: str) -> None:
    tool_format, plan = TOOL_FORMATS[name], plan_tools(TOOLS, "auto")
    texts = RandomTexts(ExpectedReply(tool_format, plan, ANSWER, "none").grammar(), random.Random(name))
    kinds = check_random_texts(texts, 40, tool_format, plan, ANSWER, "none")
    assert kinds == {"calls", "answer"}


def check_random_texts(
    texts: RandomTexts,
    number: int,
    tool_format: ToolFormat,
    plan: ToolPlan,
    answer: JSONSchema | None,
    thinking: Thinking,
) -> set[str]:
    """Read random texts and assert what was promised for them; return what they were."""
    kinds = set()
    for _ in range(number):
        text = texts.draw()
        reader = ExpectedReply(tool_format, plan, answer, thinking).reader()
        message = ParsedMessage.of(reader.feed(text) + reader.finish())
        assert not message.invalid_tool_calls, text
        if answer is None:
            assert free_text(ExpectedReply(tool_format, plan, None, thinking), text) == message.content.split(), text
        for one in message.tool_calls:
            (tool,) = (tool for tool in plan.callable if tool.name == one.name)
            Draft202012Validator(tool.parameters).validate(one.arguments)
            assert json.loads(one.arguments_json) == one.arguments
        if plan.mode == "required":
            assert message.tool_calls and not message.content, text
        assert len(message.tool_calls) <= (1 if plan.single else MAX_CALLS)
        if answer is not None and not message.tool_calls:
            assert list(json.loads(message.content)) == ["answer"], text
        kinds.add("calls" if message.tool_calls else "answer")
    return kinds


def free_text(reply: ExpectedReply, text: str) -> list[str]:
    """The words of what a stop text may end."""
    if not reply.has_free_text:
        return []
    finder = reply.free_text()
    return "".join(piece.text if piece.is_free else " " for piece in [*finder.feed(text), *finder.finish()]).split()


# ---- streams


@every_format
@settings(max_examples=examples(25))
@given(data=st.data())
def test_any_split_of_a_reply_gives_the_same(name: str, data: st.DataObject) -> None:
    tool_format = TOOL_FORMATS[name]
    syntax = tool_format.calls
    marks = [
        mark for mark in {*tool_format.markers, *syntax.literals, "Hi", " ", "\n", "{}", '"', "add", "now"} if mark
    ]
    good = [
        wire(name, [call(ADD, {"a": 5})]),
        wire(name, [call(USE, {"text": "a </tool_call> ] } b"})], "So.\n", "Hm."),
    ]
    parts = st.sampled_from(good) | st.sampled_from(sorted(marks)) | st.sampled_from(good).map(lambda text: text[:-3])
    text = "".join(data.draw(st.lists(parts, max_size=5)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = without_ids(parse_reply(tool_format, text, TOOLS))
    assert without_ids(streamed(name, pieces)) == whole
    assert without_ids(streamed(name, list(text))) == whole


def streamed(name: str, pieces: list[str]) -> ParsedMessage:
    reader = make_reader(TOOL_FORMATS[name], TOOLS)
    return ParsedMessage.of([delta for piece in pieces for delta in reader.feed(piece)] + reader.finish())


def without_ids(message: ParsedMessage) -> Any:
    calls = [(one.name, one.arguments_json) for one in message.tool_calls]
    invalid = [(one.text, one.error) for one in message.invalid_tool_calls]
    return message.content, message.reasoning, calls, invalid


@every_format
def test_fragments_of_a_call_add_up_to_its_arguments(name: str) -> None:
    calls = [call(USE, {"text": "one two\nthree", "count": 3, "items": ["a"]}), call(NOW, {})]
    calls = calls[: TOOL_FORMATS[name].calls.most]
    reader = make_reader(TOOL_FORMATS[name], TOOLS)
    deltas = [delta for char in wire(name, calls) for delta in reader.feed(char)] + reader.finish()
    fragments = [delta.tool_call for delta in deltas if delta.tool_call is not None]
    for index, one in enumerate(ParsedMessage.of(deltas).tool_calls):
        first, *others = [fragment for fragment in fragments if fragment.index == index]
        assert (first.id, first.name, first.arguments) == (one.id, one.name, "")
        assert "".join(fragment.arguments for fragment in others) == one.arguments_json
        assert all(fragment.id is None and fragment.name is None for fragment in others)
    assert len([fragment for fragment in fragments if fragment.index == 0]) > 5, "a long text streams as it comes"


@every_format
def test_no_part_of_a_marker_is_ever_shown(name: str) -> None:
    reader = make_reader(TOOL_FORMATS[name], TOOLS)
    texts = [delta.text for char in wire(name, [call(ADD, {"a": 1})]) for delta in reader.feed(char)]
    assert "".join(texts) == ""


# ---- the grammar of a choice


@every_format
def test_none_forbids_the_calls_and_allows_other_text(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    assert not pushdown(name, "none").accepts(wire(name, [call(ADD, {"a": 1})]))
    assert pushdown(name, "none").accepts(f"{tool_format.text_begin}Well [1] <b>{tool_format.text_end}")


@every_format
def test_only_declared_names_and_valid_arguments_are_possible(name: str) -> None:
    text = wire(name, [call(ADD, {"a": 123})])
    assert pushdown(name, "required").accepts(text) and pushdown(name, "auto").accepts(text)
    for old, new in (("add", "invented"), ("123", '"x"'), ("123", "1.5"), ("add", "adds")):
        assert old in text
        for choice in ("auto", "required"):
            assert not pushdown(name, choice).accepts(text.replace(old, new))


@every_format
def test_a_named_tool_and_single_calls_are_called_once(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    one, two = ([call(ADD, {"a": 1})] * count for count in (1, 2))
    for plan in (plan_tools(TOOLS, "add"), plan_tools(TOOLS, "required", parallel_tool_calls=False)):
        reader = Pushdown(ExpectedReply(tool_format, plan, None, "none").grammar())
        assert reader.accepts(tool_format.write_calls(one)) and not reader.accepts(tool_format.write_calls(two))
    assert pushdown(name, "required").accepts(tool_format.write_calls(two)) == (tool_format.calls.most > 1)
    assert not Pushdown(ExpectedReply(tool_format, plan_tools(TOOLS, "add"), None, "none").grammar()).accepts(
        tool_format.write_calls([call(NOW, {})])
    )


@every_format
def test_a_reply_has_a_bounded_number_of_calls(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    most = tool_format.calls.most
    assert pushdown(name, "required").accepts(tool_format.write_calls([call(NOW, {})] * most))
    assert not pushdown(name, "required").accepts(tool_format.write_calls([call(NOW, {})] * (most + 1)))


@pytest.mark.parametrize("name", [name for name in NAMES if TOOL_FORMATS[name].reasoning])
def test_constraints_begin_behind_the_reasoning(name: str) -> None:
    marks = TOOL_FORMATS[name].reasoning
    assert marks is not None
    calls = wire(name, [call(ADD, {"a": 1})])
    thought = f"I could {calls} now{marks.end}{marks.bridge}"
    assert pushdown(name, "required", "open").accepts(thought + calls)
    assert not pushdown(name, "required", "open").accepts(calls)
    assert pushdown(name, "required", "auto").accepts(marks.lead + marks.begin + thought + calls)
    assert pushdown(name, "required", "auto").accepts(calls)
    assert not pushdown(name, "required", "auto").accepts(marks.lead + marks.begin + thought + "text")
    answer = f'{TOOL_FORMATS[name].text_begin}{{"answer": "x"}}{TOOL_FORMATS[name].text_end}'
    assert pushdown(name, "none", "open", with_answer=True).accepts(thought + answer)
    assert not pushdown(name, "none", "open", with_answer=True).accepts(thought + "answer")


@every_format
def test_marks_inside_a_json_answer_are_text(name: str) -> None:
    tool_format, plan = TOOL_FORMATS[name], plan_tools(TOOLS, "auto")
    answer = json.dumps({"answer": "".join(sorted(tool_format.markers)) + "<|return|> {}"}, ensure_ascii=False)
    text = f"{tool_format.text_begin}{answer}{tool_format.text_end}"
    assert pushdown(name, "auto", with_answer=True).accepts(text)
    for pieces in ([text], list(text)):
        reader = ExpectedReply(tool_format, plan, ANSWER, "none").reader()
        message = ParsedMessage.of([delta for piece in pieces for delta in reader.feed(piece)] + reader.finish())
        assert (message.content, message.tool_calls, message.invalid_tool_calls) == (answer, (), ())


# ---- what is broken stays what it is


@every_format
def test_a_call_that_is_cut_off_is_kept_with_its_text(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    text = wire(name, [call(USE, {"text": "abc"})])
    cut = text[: text.index("abc") + 2]
    reader = make_reader(tool_format, TOOLS)
    message = ParsedMessage.of(reader.feed(cut) + reader.finish(cut_off=True))
    (invalid,) = message.invalid_tool_calls
    assert not message.tool_calls and message.content == ""
    assert invalid.text == cut and invalid.error == "the token budget ended inside the call" and invalid.id


# Where calls stand after text; harmony's text and calls are messages with headers.
MARKED = [
    name for name, form in TOOL_FORMATS.items() if form.calls.marker and name != "harmony" and not form.calls.opening
]


@pytest.mark.parametrize("name", MARKED)
def test_a_marker_that_is_cut_off_is_text_because_no_call_was_begun(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    marker = tool_format.calls.marker
    for length in range(1, len(marker)):
        text = "Well. " + marker[:length]
        for pieces in ([text], list(text)):
            reader = make_reader(tool_format, TOOLS)
            message = ParsedMessage.of(
                [delta for piece in pieces for delta in reader.feed(piece)] + reader.finish(cut_off=True)
            )
            assert (message.content, message.invalid_tool_calls) == (text, ())


@every_format
def test_an_unknown_tool_and_invalid_arguments_are_named(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    text = wire(name, [call(ADD, {"a": 123})])
    for old, new, error in (("add", "gone", "unknown tool 'gone'"), ("123", "1.5", "arguments.a: ")):
        message = parse_reply(tool_format, text.replace(old, new), TOOLS)
        (invalid,) = message.invalid_tool_calls
        assert not message.tool_calls and error in invalid.error
        assert invalid.text in text.replace(old, new) and new in invalid.text


@every_format
def test_arguments_that_break_the_format_of_a_text_are_invalid(name: str) -> None:
    tool = Tool("meet", "", {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}})
    written = [
        TOOL_FORMATS[name].write_calls([ToolCall("1", "meet", {"day": day}, "")]) for day in ("2024-02-29", "no")
    ]
    assert len(parse_reply(TOOL_FORMATS[name], written[0], [tool]).tool_calls) == 1
    (invalid,) = parse_reply(TOOL_FORMATS[name], written[1], [tool]).invalid_tool_calls
    assert invalid.error == "arguments.day: 'no' is not a 'date'"


JSON_CASES = [
    ('{"name": "now", "arguments": {,}}', "not JSON"),
    ('{"name": "now", "arguments": {"x": NaN}}', "not JSON"),
    ('{"name": "now", "arguments": {}, "more": 1}', "it must be {"),
    ('{"name": "now", "arguments": "{}"}', "it must be {"),
    ('{"name": "now", "arguments": {}, "name": "add"}', "it must be {"),
    ('{"name": "now"}', "it must be {"),
    ("now()", "not JSON"),
    ('{"name": "now", "arguments": {"x":' + "[" * 9999 + "]" * 9999 + "}}", "not JSON"),
]


@pytest.mark.parametrize(("body", "error"), JSON_CASES)
def test_broken_json_says_why_and_does_not_spoil_the_next_call(body: str, error: str) -> None:
    good = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    message = parse_reply(TOOL_FORMATS["qwen3"], f"Hm. <tool_call>{body}</tool_call>\n{good}", TOOLS)
    (invalid,) = message.invalid_tool_calls
    assert message.content == "Hm." and plain(message.tool_calls) == [("now", {})]
    assert invalid.text == f"<tool_call>{body}</tool_call>" and error in invalid.error


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3", '<tool_call>{ "arguments" : {"a": 1}, "name": "add" }</tool_call>'),
        ("qwen3", '<tool_call>\n\n{"name":"add","arguments":{"a":1}}\n\n</tool_call>'),
        ("mistral_v3", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]'),
        ("mistral", '[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": 1}'),
        ("llama3_json", ' <|python_tag|>{"type": "function", "name": "add", "parameters": {"a": 1}}'),
        ("llama3_json", '\n{"name":"add","parameters":{"a":1}}'),
        ("qwen3_coder", "<tool_call><function=add><parameter=a>1</parameter></function></tool_call>"),
        ("glm4", "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>"),
        ("glm47", "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"),
        ("pythonic", "[ add( a = 1, ) ]"),
        ("lfm2", "<|tool_call_start|>[add(a=1)]"),
        ("gemma4", "<|tool_call>call:add{ a : 1 }<tool_call|>"),
        ("harmony", '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>'),
        ("harmony", ' to=functions.add<|channel|>commentary json<|message|>{"a":1}'),
        ("deepseek_v31", '<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'),
    ],
)
def test_what_models_write_in_other_ways_is_read_too(name: str, text: str) -> None:
    if name == "llama3_json" and "type" in text:
        text = text.replace('"type": "function", ', "").replace('{"a": 1}', '{"a": 1}, "type": "function"')
    message = parse_reply(TOOL_FORMATS[name], text, TOOLS)
    assert plain(message.tool_calls) == [("add", {"a": 1})], message


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_harmony_writes_several_calls_and_before_them_thoughts_and_a_preamble(choice: str) -> None:
    header, following = "<|channel|>commentary to=functions.", "<|end|><|start|>assistant"
    calls = following.join(f'{header}add <|constrain|>json<|message|>{{"a": {number}}}' for number in (1, 2))
    thought = f"<|channel|>analysis<|message|>Two sums.{following}"
    preamble = f"<|channel|>commentary<|message|>Adding.{following}" if choice == "auto" else ""
    reply = Pushdown(ExpectedReply(TOOL_FORMATS["harmony"], plan_tools(TOOLS, choice), None, "auto").grammar())
    assert reply.accepts(thought + preamble + calls)
    message = parse_reply(TOOL_FORMATS["harmony"], thought + preamble + calls + "<|call|>", TOOLS)
    assert plain(message.tool_calls) == [("add", {"a": 1}), ("add", {"a": 2})]
    assert (message.reasoning, message.content) == ("Two sums.", "Adding." if choice == "auto" else "")


def test_a_preamble_and_the_answer_are_lines_of_the_text() -> None:
    text = "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>final<|message|>Done."
    reply = Pushdown(ExpectedReply(TOOL_FORMATS["harmony"], plan_tools(TOOLS, "auto"), None, "none").grammar())
    assert reply.accepts(text)
    assert parse_reply(TOOL_FORMATS["harmony"], text, TOOLS).content == "Wait.\nDone."


def test_python_literals_of_every_kind_are_read() -> None:
    others = """items=["a", 'b'], nested={'inner': "", "on": True}, flag=None"""
    text = r"""[use(text='it\'s "x" \x41\u00e9\n\ud83d\ude00', """ + others + ")]"
    (one,) = parse_reply(TOOL_FORMATS["pythonic"], text, TOOLS).tool_calls
    nested = {"inner": "", "on": True}
    assert one.arguments == {"text": 'it\'s "x" Aé\n😀', "items": ["a", "b"], "nested": nested, "flag": None}


@pytest.mark.parametrize(
    "value", ["1 2", "x", "0x10", "'a", "[1", "{1: 2", "nan", "1e", r"'\u12'", r"'\ud800'", "[" * 200]
)
def test_python_literals_that_are_none_are_refused(value: str) -> None:
    message = parse_reply(TOOL_FORMATS["pythonic"], f"[use(text={value})]", TOOLS)
    assert not message.tool_calls and len(message.invalid_tool_calls) == 1


@pytest.mark.parametrize("name", RAW)
def test_a_text_parameter_holds_whatever_stands_there(name: str) -> None:
    for text in ("12", "null", "true", '"quoted"', "{}", "", " a ", "\n", "a\n", "\na"):
        (one,) = parse_reply(TOOL_FORMATS[name], wire(name, [call(USE, {"text": text})]), TOOLS).tool_calls
        assert one.arguments == {"text": text}


@pytest.mark.parametrize("name", BESIDE_JSON)
def test_a_text_beside_structures_cannot_begin_like_one(name: str) -> None:
    tool_format = TOOL_FORMATS[name]
    tool = Tool("f", "", {"type": "object", "properties": {"x": {"type": ["string", "array"]}}})
    reader = Pushdown(ExpectedReply(tool_format, plan_tools((tool,), "required"), None, "none").grammar())
    for value, is_possible in (("a [", True), (["a"], True), ("[a", False), (" {", False), ("", True)):
        assert reader.accepts(tool_format.write_calls([ToolCall("1", "f", {"x": value}, "")])) == is_possible


@pytest.mark.parametrize("name", sorted(UNWRITABLE))
def test_a_mark_that_ends_a_text_cannot_be_written_in_one(name: str) -> None:
    text = wire(name, [call(USE, {"text": f"a{UNWRITABLE[name]}b"})])
    assert not pushdown(name, "required").accepts(text)


# ---- names, ids, detection


@every_format
def test_the_format_is_found_from_the_template(name: str) -> None:
    found = find_tool_format(template_of(name))
    assert found.name == name
    assert (found.reasoning is None) == (TOOL_FORMATS[name].reasoning is None)
    from_template = found_format(TemplateTokenizer.of(name))
    assert from_template.tool_format.name == name and not from_template.warning
    kind = "texts" if name.startswith("deepseek") else "objects"
    shown = (from_template.abilities.tools, from_template.abilities.calls)
    assert shown == ((False, None) if name in ("generic_json", "smollm2") else (True, kind))


def test_a_format_can_be_named_and_a_wrong_name_is_refused() -> None:
    assert find_tool_format(template_of("qwen3"), "mistral").name == "mistral"
    assert find_tool_format("no family's").name == "generic_json"
    with pytest.raises(RequestError, match=r"tool_format='morse' must be 'auto' or one of 'harmony', "):
        find_tool_format("", "morse")


def test_names_that_python_cannot_write_are_mapped_and_mapped_back() -> None:
    tools = (Tool("web.search-v2"), Tool("2nd"))
    for name in ("pythonic", "lfm2"):
        tool_format = TOOL_FORMATS[name]
        text = tool_format.write_calls([ToolCall("1", tool.name, {}, "{}") for tool in tools])
        assert "web_search_v2()" in text and "_2nd()" in text
        assert [one.name for one in parse_reply(tool_format, text, tools).tool_calls] == ["web.search-v2", "2nd"]
        assert Pushdown(ExpectedReply(tool_format, plan_tools(tools, "required"), None, "none").grammar()).accepts(text)
        assert "web_search_v2" in tools_as_text(tool_format, tools)


def test_names_that_would_be_written_alike_are_refused() -> None:
    with pytest.raises(ToolChoiceError, match=r"'a\.b' and 'a-b' are written alike in the format 'pythonic'"):
        TOOL_FORMATS["pythonic"].check_names((Tool("a.b"), Tool("a-b")))


@pytest.mark.parametrize("name", [*RAW, "pythonic", "functiongemma"])
def test_a_parameter_that_cannot_be_written_is_refused_by_name(name: str) -> None:
    tool = Tool("f", "", {"type": "object", "properties": {"a>b": {"type": "integer"}}})
    with pytest.raises(ConstraintError, match=r"parameter 'a>b'"):
        ExpectedReply(TOOL_FORMATS[name], plan_tools((tool,), "required"), None, "none").grammar()


@pytest.mark.parametrize("mark", ["<tool_call>", "[TOOL_CALLS]", "</think>"])
def test_a_tool_that_is_named_like_a_marker_is_refused(mark: str) -> None:
    with pytest.raises(ToolChoiceError, match="tool name="):
        Tool(mark)


def test_ids_have_the_form_that_the_templates_want() -> None:
    mistral = parse_reply(TOOL_FORMATS["mistral"], "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[ARGS]{}", TOOLS).tool_calls
    assert all(len(one.id) == 9 and one.id.isalnum() for one in mistral) and mistral[0].id != mistral[1].id
    assert len(TOOL_FORMATS["mistral"].template_id(ToolCall("call_foreign", "now", {}, "{}"), 0)) == 9
    kimi = TOOL_FORMATS["kimi_k2"]
    parsed = parse_reply(kimi, wire("kimi_k2", [call(NOW, {}), call(ADD, {"a": 1}, "call_2")]), TOOLS)
    assert [one.id for one in parsed.tool_calls] == ["functions.now:0", "functions.add:1"]
    assert make_reader(kimi, TOOLS, num_earlier_calls=3).feed("<|tool_calls_section_begin|>") == []


@every_format
def test_the_instructions_list_every_tool_and_show_a_call(name: str) -> None:
    text = tools_as_text(TOOL_FORMATS[name], TOOLS)
    assert text == tools_as_text(TOOL_FORMATS[name], TOOLS)
    for tool in TOOLS:
        line = next(line for line in text.splitlines() if f'"name": "{tool.name}"' in line)
        assert json.loads(line)["parameters"] == tool.parameters
    assert TOOL_FORMATS[name].calls.marker in text


@pytest.mark.parametrize("tool_format", [FUNCTIONGEMMA, GEMMA4])
def test_gemmas_keys_are_sorted_as_its_template_sorts_them(tool_format: Any) -> None:
    tool = Tool("f", "", {"type": "object", "properties": {name: {"type": "integer"} for name in "bAc"}})
    reader = Pushdown(ExpectedReply(tool_format, plan_tools((tool,), "required"), None, "none").grammar())
    assert reader.accepts(tool_format.write_calls([ToolCall("1", "f", {"A": 1, "b": 2, "c": 3}, "")]))
    assert not reader.accepts(tool_format.write_calls([ToolCall("1", "f", {"b": 2, "A": 1, "c": 3}, "")]))


# ---- the documentation

WEATHER = Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
DOCUMENT = (Path(__file__).parents[2] / "docs" / "tool_formats.md").read_text()


def test_the_documented_calls_are_what_the_formats_write() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`+)(.+?)\2 \| ", DOCUMENT, re.MULTILINE)
    documented = {name: text.replace("\\|", "|").replace("\\n", "\n") for name, _, text in rows}
    rome = ToolCall("call_1", "weather", {"city": "Rome"}, '{"city": "Rome"}')
    assert documented == {name: tool_format.write_calls([rome]) for name, tool_format in TOOL_FORMATS.items()}


def test_the_documented_code_runs_and_the_numbers_are_right() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(code, {})
    assert f"at most {MAX_CALLS}," in DOCUMENT
