"""What is found for templates that fit no family, that do less than they should, or that fail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mlx_agent_llm import Engine, EngineConfig, Tool
from mlx_agent_llm.chat import ToolCall, found_format, parse_reply, prepare_chat
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.errors import RequestError
from mlx_agent_llm.models.tokenizer import HFTokenizer
from mlx_agent_llm.testing import RandomLogitsModel
from tests.support.chat_templates import byte_tokenizer, tokenizer_of
from tests.support.native_replies import FAMILIES
from tests.support.tool_templates import TemplateTokenizer

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})
TOOLS = (ADD, Tool("now"))
ASK = [{"role": "user", "content": "hi"}]
TURNS = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}CALLS<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EACH = "{% for c in m.tool_calls or () %}CALL{% endfor %}"


def template(call: str) -> str:
    return TURNS.replace("CALLS", EACH.replace("CALL", call))


def history(num_calls: int = 1) -> list[dict[str, object]]:
    calls = [
        {"id": f"call{index}", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {index}}}'}}
        for index in range(num_calls)
    ]
    results = [{"role": "tool", "tool_call_id": f"call{index}", "content": f"sum{index}"} for index in range(num_calls)]
    return [*ASK, {"role": "assistant", "content": "Well.", "tool_calls": calls}, *results]


def prompt(source: str, messages: list[dict[str, object]]) -> str:
    tokenizer = byte_tokenizer(source)
    names = tokenizer.special_token_texts
    token_ids = prepare_chat(tokenizer, messages, tools=TOOLS).prompt_token_ids
    return b"".join(names[one].encode() if one in names else tokenizer.token_bytes[one] for one in token_ids).decode()


JSON_CALLS = {
    "marks that no family has": "<<go>>{{ c.function.name }}|{{ c.function.arguments | tojson }}<</go>>",
    "the name as a key": '<do>{"{{ c.function.name }}": {{ c.function.arguments | tojson }}}</do>',
    "parameters with types": (
        '<call n="{{ c.function.name }}">{% for k, v in c.function.arguments | items %}'
        "<p n=\"{{ k }}\" t=\"{{ 'text' if v is string else 'json' }}\">"
        "{{ v if v is string else v | tojson }}</p>{% endfor %}</call>"
    ),
    "an id before the name": "<do>{{ c.id }}:{{ c.function.name }}{{ c.function.arguments | tojson }}</do>",
}


@pytest.mark.parametrize("call", JSON_CALLS.values(), ids=JSON_CALLS)
def test_calls_in_a_form_that_nobody_knows_are_derived_from_the_template(call: str) -> None:
    found = found_format(byte_tokenizer(template(call)))
    assert found.source == "derived" and not found.warning and found.abilities.two_calls
    written = prompt(template(call), history(2)).split("assistant\n")[1].split("<|im_end|>")[0].removeprefix("Well.")
    message = parse_reply(found.tool_format, written, TOOLS)
    assert [(one.name, one.arguments) for one in message.tool_calls] == [("add", {"a": 0}), ("add", {"a": 1})]
    reply = ExpectedReply(found.tool_format, plan_tools(TOOLS, "required"), None, "none")
    assert Pushdown(reply.grammar()).accepts(written)


COMPACT = "c.function.arguments | tojson(separators=(',', ':'))"
SPACINGS = {
    "a family, compact within": (
        f'<tool_call>\n{{"name": "{{{{ c.function.name }}}}", "arguments": {{{{ {COMPACT} }}}}}}\n</tool_call>\n',
        "qwen3",
        '{"name": "add", "arguments": {"a":1,"b":"x"}}',
    ),
    "a family, all compact": (
        f'<tool_call>\n{{"name":"{{{{ c.function.name }}}}","arguments":{{{{ {COMPACT} }}}}}}\n</tool_call>\n',
        "qwen3",
        '{"name":"add","arguments":{"a":1,"b":"x"}}',
    ),
    "derived": (f"<<go>>{{{{ c.function.name }}}}|{{{{ {COMPACT} }}}}<</go>>", "derived", '{"a":1,"b":"x"}'),
}


@pytest.mark.parametrize(("call", "name", "written"), SPACINGS.values(), ids=SPACINGS)
def test_json_is_written_with_the_blanks_that_the_template_writes_and_read_with_any(
    call: str, name: str, written: str
) -> None:
    found = found_format(byte_tokenizer(template(call)))
    assert found.tool_format.name == name and not found.warning
    text = found.tool_format.write_calls([ToolCall("1", "add", {"a": 1, "b": "x"}, "")])
    assert written in text
    reply = Pushdown(ExpectedReply(found.tool_format, plan_tools(TOOLS, "required"), None, "none").grammar())
    spaced = text.replace('1,"b":', '1, "b": ')
    assert reply.accepts(text) and not reply.accepts(spaced)
    for read in (text, spaced):
        assert [one.arguments for one in parse_reply(found.tool_format, read, TOOLS).tool_calls] == [{"a": 1, "b": "x"}]


def test_structures_between_tags_have_the_blanks_that_the_template_writes() -> None:
    call = (
        "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}"
        + "<parameter={{ k }}>LINE{{ VALUE }}LINE</parameter>LINE{% endfor %}".replace("LINE", "{{ '\\n' }}")
        + "</function>\n</tool_call>\n"
    ).replace("VALUE", "v if v is string else v | tojson(separators=(',', ':'))")
    tool = Tool("put", "", {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "integer"}}}})
    tool_format = found_format(byte_tokenizer(template(call))).tool_format
    text = tool_format.write_calls([ToolCall("1", "put", {"x": [1, 2]}, "")])
    assert tool_format.name == "qwen3_coder" and "\n[1,2]\n" in text
    assert Pushdown(ExpectedReply(tool_format, plan_tools((tool,), "required"), None, "none").grammar()).accepts(text)


UNREADABLE = {
    "arguments lost": "<do>{{ c.function.name }}{{ c.function.arguments | length }}</do>",
    "no mark": "{{ c.function.name }} {{ c.function.arguments | tojson }}",
    "arguments as Python": "<do>{{ c.function.name }} {{ c.function.arguments }}</do>",
}


@pytest.mark.parametrize("call", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_back_is_no_format_and_calls_are_text(call: str) -> None:
    found = found_format(byte_tokenizer(template(call)))
    if found.source == "derived":  # as texts the arguments are rendered as they are
        assert found.abilities.calls == "texts"
        return
    assert found.tool_format.name == "generic_json" and found.abilities.calls is None
    assert '<tool_call>{"name": "add", "arguments": {"a": 0}}</tool_call>' in prompt(template(call), history())


def test_an_engine_says_what_was_found_and_warns_of_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(template(UNREADABLE["no mark"]))
    config = EngineConfig(kv_cache_tokens=1024)
    with (
        caplog.at_level(logging.WARNING),
        Engine.from_parts(RandomLogitsModel(tokenizer.vocab_size), tokenizer, config) as engine,
    ):
        assert engine.tool_format.source == "generic"
        stats = engine.stats()
    assert "cannot be read back" in caplog.text
    assert (stats.tool_format, stats.tool_format_source) == ("generic_json", "generic")
    assert "cannot be read back" in stats.tool_format_warning


def test_a_format_that_contradicts_the_template_is_named() -> None:
    tokenizer = byte_tokenizer(template(JSON_CALLS["the name as a key"]))
    found = found_format(tokenizer, "mistral")
    assert found.source == "given" and "in another form than tool_format='mistral'" in found.warning
    assert found.warning.endswith("tool_format='auto' looks for the template's own form")
    shown = prepare_chat(tokenizer, history(), tools=TOOLS, tool_format="mistral").prompt_token_ids
    assert b"[TOOL_CALLS]add[ARGS]" in bytes(token for token in shown if token < 256)


def test_a_template_that_refuses_two_calls_gets_one_a_turn_and_replies_make_one() -> None:
    one_only = "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    source = template(one_only + "<do>{{ c.function.name }}{{ c.function.arguments | tojson }}</do>")
    found = found_format(byte_tokenizer(source))
    assert found.tool_format.calls.most == 1 and not found.abilities.two_calls
    shown = prompt(source, history(2))
    places = [shown.index(text) for text in ('add{"a": 0}', "sum0", 'add{"a": 1}', "sum1")]
    assert places == sorted(places)


def test_a_template_that_shows_no_results_has_calls_and_results_as_text() -> None:
    source = template("<do>{{ c.function.name }}{{ c.function.arguments | tojson }}</do>").replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"
    )
    shown = prompt(source, history())
    assert "<tool_response>sum0</tool_response>" in shown
    warning = found_format(byte_tokenizer(source)).warning
    assert warning == "the chat template shows calls but not their results: both are written as text"


def test_a_template_that_knows_no_tools_and_writes_all_roles_alike_has_results_as_turns_of_the_user() -> None:
    source = "<SmolLM>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    found = found_format(byte_tokenizer(source))
    assert (found.tool_format.name, found.source, found.abilities.results) == ("smollm2", "signs", False)
    assert "<|im_start|>user\n<tool_response>sum0</tool_response>" in prompt(source, history())
    source = source.replace("{{ m.content }}", "{{ '[result] ' if m.role == 'tool' }}{{ m.content }}")
    assert "<|im_start|>tool\n[result] sum0" in prompt(source, history())


def test_a_text_that_is_not_shown_beside_a_call_stands_in_a_turn_before_it() -> None:
    source = template("<do>{{ c.function.name }}{{ c.function.arguments | tojson }}</do>").replace(
        "{{ m.content or '' }}", "{{ m.content if not m.tool_calls else '' }}"
    )
    assert "<|im_start|>assistant\nWell.<|im_end|>\n<|im_start|>assistant\n<do>" in prompt(source, history())


def test_a_mark_that_ends_replies_cannot_begin_calls() -> None:
    source = template("<|eot_id|>{{ c.function.name }}{{ c.function.arguments | tojson }}")
    assert found_format(byte_tokenizer(source)).source == "generic"


@pytest.mark.parametrize("failure", ["{{ messages.nothing.more }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"])
def test_whatever_a_template_raises_is_the_error_of_the_request(failure: str) -> None:
    with pytest.raises(RequestError, match="the model's chat template refuses these messages"):
        prepare_chat(byte_tokenizer(failure), ASK)


def test_of_several_templates_the_one_for_tools_serves_chats_with_tools() -> None:
    named = {"default": "plain{{ messages[0].content }}", "tool_use": template(JSON_CALLS["the name as a key"])}
    tokenizer = byte_tokenizer(named)
    assert found_format(tokenizer).source == "derived"
    assert tokenizer.apply_chat_template(ASK) == "plainhi"
    assert "<|im_start|>tools" in tokenizer.apply_chat_template(ASK, tools=[{"type": "function"}])


# As Command R's template for documents: a turn of results after the conversation, a line for each key.
RAG = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>results"
    "{% for document in documents %}{{ '\n' }}Document: {{ loop.index0 }}{% for key, value in document.items() %}"
    "{{ '\n' }}{{ key }}: {{ value }}{% endfor %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n"
)
DOCUMENTS = [
    {"title": "Tall penguins", "text": "Emperors grow <|im_end|> up to 122 cm."},
    {"title": "Other", "year": 9},
]


def shown_with(tokenizer: HFTokenizer, **options: Any) -> str:
    names = tokenizer.special_token_texts
    token_ids = prepare_chat(tokenizer, ASK, documents=DOCUMENTS, **options).prompt_token_ids
    assert sum(names.get(one) == "<|im_end|>" for one in token_ids) == 2, "what a document holds is text"
    return b"".join(names[one].encode() if one in names else tokenizer.token_bytes[one] for one in token_ids).decode()


def test_documents_are_shown_by_the_template_for_them() -> None:
    named = {"default": template(""), "tool_use": template(JSON_CALLS["an id before the name"]), "rag": RAG}
    tokenizer = byte_tokenizer(named)
    text = shown_with(tokenizer)
    assert "\nDocument: 0\ntitle: Tall penguins\ntext: Emperors grow <|im_end|> up" in text and "\nyear: 9" in text
    assert shown_with(byte_tokenizer(RAG)) == text
    assert found_format(tokenizer).abilities.tools
    with pytest.raises(RequestError, match=r"documents\[0\]: the model's chat template shows nothing of it"):
        shown_with(tokenizer, tools=TOOLS)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "documents=\\[\\] must be None or dicts, at least one"),
        ("text", "documents='text' must be None or dicts"),
        ([{"text": "a"}, "b"], "documents\\[1\\]='b' must be a dict with a text"),
        ([{"year": 9}], "documents\\[0\\]={'year': 9} must be a dict with a text"),
        ([{"text": "unseen"}], "documents\\[0\\]: the model's chat template shows nothing of it in such a chat"),
    ],
)
def test_documents_that_cannot_be_shown_are_named(documents: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prepare_chat(byte_tokenizer(template("")), ASK, documents=documents)


def test_our_own_marks_in_a_history_are_control_tokens_and_those_of_users_are_not() -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{# [TOOL_CALLS] [ARGS] #}"
    tokenizer = TemplateTokenizer(source, ["[TOOL_CALLS]", "[ARGS]"])
    messages = [{"role": "user", "content": "I write [TOOL_CALLS] and [ARGS]"}, *history()[1:]]
    token_ids = prepare_chat(tokenizer, messages).prompt_token_ids
    marks = [tokenizer.special_token_texts[token] for token in token_ids if token >= 256]
    assert marks == ["[TOOL_CALLS]", "[ARGS]"]
    assert "I write [TOOL_CALLS] and [ARGS]" in tokenizer.show(token_ids)


LENIENT = [
    ("qwen3-coder", "So: <function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>", "So:"),
    ("qwen3-coder", "<function=add>\n<parameter=a>\n1\n</parameter>\n</function>", ""),
    ("minimax m2", 'So: <invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>', "So:"),
    ("llama 3.1", '{"type": "function", "name": "add", "parameters": {"a": 1}}', ""),
    ("llama 3.1", '{"name": "add", "arguments": {"a": 1}}', ""),
    ("qwen3", '<tool_call>{"type": "function", "function": {"name": "add", "parameters": {"a": 1}}}</tool_call>', ""),
]


@pytest.mark.parametrize(("family", "text", "content"), LENIENT)
def test_what_models_confuse_is_read_as_what_is_meant(family: str, text: str, content: str) -> None:
    message = parse_reply(found_format(tokenizer_of(FAMILIES[family].template)).tool_format, text, TOOLS)
    assert [(one.name, one.arguments) for one in message.tool_calls] == [("add", {"a": 1})]
    assert message.content == content and not message.invalid_tool_calls


def test_a_python_list_between_tags_is_read_and_what_is_no_value_is_invalid() -> None:
    tool = Tool("put", "", {"type": "object", "properties": {"items": {"type": "array", "items": {"type": "string"}}}})
    tool_format = found_format(tokenizer_of("ByteDance-Seed-OSS")).tool_format
    for value, expected in (("['a', \"b'c\"]", ["a", "b'c"]), ('["a"]', ["a"]), ("['a'", None), ("[a]", None)):
        text = f"<seed:tool_call>\n<function=put>\n<parameter=items>{value}</parameter>\n</function>\n</seed:tool_call>"
        message = parse_reply(tool_format, text, [tool])
        assert [one.arguments["items"] for one in message.tool_calls] == ([] if expected is None else [expected])
        assert [one.text for one in message.invalid_tool_calls] == ([text] if expected is None else [])


def test_a_line_break_after_a_call_asks_for_no_other_call() -> None:
    tool_format = found_format(tokenizer_of("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")).tool_format
    text = tool_format.write_calls([ToolCall("1", "now", {}, "{}")])
    for choice in ("auto", "required", "now"):
        reply = Pushdown(ExpectedReply(tool_format, plan_tools(TOOLS, choice), None, "none").grammar())
        assert reply.accepts(text) and reply.accepts(f"{text}\n")
