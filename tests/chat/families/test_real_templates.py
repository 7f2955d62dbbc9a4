"""The chat templates that model families ship: which format is found, and that what they render is read and allowed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mlx_agent_llm.chat import ParsedMessage, ToolCall, prepare_chat
from mlx_agent_llm.chat.derive.gate import thinking_of
from mlx_agent_llm.chat.found_format import _adapted, _candidates, _ways, found_format
from mlx_agent_llm.chat.messages import read_messages
from mlx_agent_llm.chat.reply.expected_reply import ExpectedReply
from mlx_agent_llm.chat.template import render_prompt
from mlx_agent_llm.chat.tools import plan_tools
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.reasoning import Thinking
from mlx_agent_llm.errors import RequestError
from tests.support.chat_templates import template_names, template_source, tokenizer_of
from tests.support.random_texts import RandomTexts
from tests.support.rendered_calls import rendered_calls
from tests.support.template_table import documented, table
from tests.support.tool_conversations import ARGUMENTS, SEARCH, TOOLS, UNICODE, history

every_template = pytest.mark.parametrize("name", template_names() or ["not fetched"])

# Templates whose models call tools in a form that is not found: they are told of generic_json, with a warning.
NOT_FOUND = {
    "CohereForAI-c4ai-command-r-plus-tool_use": "calls stand in indented JSON",
    "meetkai-functionary-medium-v3.2": "the prompt opens the mark of calls and of texts alike",
}
# Templates that no chat with calls can be rendered with, for the sandbox of transformers forbids what they do.
FORBIDDEN = ("Kimi-K2-Instruct", "Kimi-K2-Thinking")
# Templates that were made for models without tools.
WITHOUT_TOOLS = ("google-gemma-2-2b-it", "llama-cpp-rwkv-world", "microsoft-Phi-3.5-mini-instruct")


@every_template
def test_a_format_is_found_or_the_template_is_named(name: str) -> None:
    found = found_format(tokenizer_of(name))
    if name in NOT_FOUND:
        assert found.source == "generic" and "cannot be read back" in found.warning
    elif name in WITHOUT_TOOLS:
        assert found.source == "generic" and not found.warning and not found.abilities.tools
    else:
        assert found.source in ("derived", "family", "signs") and not found.warning
        assert name not in FORBIDDEN or (found.tool_format.name, found.source) == ("kimi_k2", "signs")


def test_of_seventy_templates_at_least_sixty_eight_are_found() -> None:
    names = template_names()
    found = [name for name in names if not found_format(tokenizer_of(name)).warning]
    assert len(names) == 70 and len(found) >= 68


# What a result looks like where the template shows results, and calls as text alone.
RESULTS = {
    "LFM2-8B-A1B": "<|im_start|>tool\n<|tool_response_start|>result0<|tool_response_end|>",
    "LFM2.5-Instruct": "<|im_start|>tool\nresult0<|im_end|>",
    "Kimi-K2-Instruct": "<|im_system|>search<|im_middle|>## Return of functions.search:0\nresult0",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "<｜tool▁output▁begin｜>result0<｜tool▁output▁end｜>",
    "ibm-granite-granite-3.3-2B-Instruct": "<|start_of_role|>tool<|end_of_role|>result0",
}


@pytest.mark.parametrize(("name", "shown"), RESULTS.items(), ids=RESULTS)
def test_a_result_is_a_turn_of_the_template_also_where_calls_are_text(name: str, shown: str) -> None:
    text = tokenizer_text(name, history([("search", ARGUMENTS)], ended=False))
    call = ToolCall("callid000", "search", ARGUMENTS, "")
    assert shown in text and found_format(tokenizer_of(name)).tool_format.write_calls([call]) in text


def test_calls_as_text_are_numbered_through_the_conversation() -> None:
    first, second = history([("search", ARGUMENTS)], ended=False), history([("now", {})], ended=False)
    second[1]["tool_calls"][0]["id"] = second[2]["tool_call_id"] = "callid009"
    text = tokenizer_text("Kimi-K2-Instruct", [*first, *second])
    assert "<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>" in text


@every_template
def test_where_a_family_and_the_template_say_how_calls_are_written_they_agree(name: str) -> None:
    tokenizer = tokenizer_of(name)
    found = found_format(tokenizer)
    if found.source != "family":
        pytest.skip(f"{found.source}")
    for way in _ways(tokenizer, found.tool_format):
        candidates = dict(_candidates(way, found.tool_format)) if way.one else {}
        syntax = candidates["derived"].calls if "derived" in candidates else None
        if syntax is None:
            continue
        family = _adapted(found.tool_format, way).calls
        assert (syntax.begin, syntax.section_begin.split()) in [
            (one.begin.lstrip(), one.section_begin.split()) for one in family.spellings
        ]
        return


@every_template
@pytest.mark.parametrize("arguments", [ARGUMENTS, UNICODE], ids=["plain", "unicode"])
def test_calls_are_rendered_read_back_and_allowed(name: str, arguments: dict[str, Any]) -> None:
    found = found_format(tokenizer_of(name))
    calls = [("search", arguments), ("now", {"zone": "UTC"})][: 2 if found.abilities.two_calls else 1]
    text = rendered_calls(tokenizer_of(name), found, calls)
    if not text:  # the template renders no calls, or escapes what is beyond ASCII
        text = found.tool_format.write_calls(read_messages(history(calls))[1].tool_calls)
    thinking = thinking_of(found.tool_format, text)
    for choice in ("auto", "required"):
        reply = ExpectedReply(found.tool_format, plan_tools(TOOLS, choice), None, thinking)
        for pieces in ([text], list(text)):
            reader = reply.reader()
            message = ParsedMessage.of([delta for piece in pieces for delta in reader.feed(piece)] + reader.finish())
            assert [(call.name, call.arguments) for call in message.tool_calls] == calls
            assert not message.invalid_tool_calls and not message.content.strip()
        if "\\u" not in text:  # some templates escape what the grammar writes as it is
            assert Pushdown(reply.grammar()).accepts(text), text


@pytest.mark.parametrize(
    "name", ["openai-gpt-oss-120b", *(pytest.param(name, marks=pytest.mark.long) for name in template_names())]
)
def test_whatever_the_grammar_of_a_found_format_produces_is_read(name: str) -> None:
    tool_format = found_format(tokenizer_of(name)).tool_format
    thinking: Thinking = "none" if tool_format.reasoning is None else "auto"
    for choice in ("auto", "required"):
        reply = ExpectedReply(tool_format, plan_tools(TOOLS, choice), None, thinking)
        texts = RandomTexts(reply.grammar(), random.Random(name + choice))
        for _ in range(40):
            text, reader = texts.draw(), reply.reader()
            message = ParsedMessage.of(reader.feed(text) + reader.finish())
            assert not message.invalid_tool_calls, text
            if choice == "required":
                assert message.tool_calls and not message.content.strip(), text


@every_template
def test_whole_conversations_are_rendered_with_all_that_was_said(name: str) -> None:
    for turns in (
        [{"role": "user", "content": "first"}],
        [{"role": "system", "content": "rules"}, {"role": "user", "content": "first"}],
        history([("search", ARGUMENTS)]),
        history([("search", ARGUMENTS), ("now", {"zone": "UTC"})]),
        history([("search", ARGUMENTS)], ended=False),
    ):
        shown = tokenizer_text(name, turns)
        words = [str(turn["content"]) for turn in turns if turn["role"] != "assistant"]
        words += [call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())]
        assert all(word in shown for word in words), (words, shown)
        assert SEARCH.description in shown and "limit" in shown


@every_template
def test_no_message_of_the_system_is_lost(name: str) -> None:
    rules = [{"role": "system", "content": "firstrule"}, {"role": "system", "content": "secondrule"}]
    ask = {"role": "user", "content": "askedtext"}
    shown = tokenizer_text(name, [*rules, ask])
    assert shown.index("firstrule") < shown.index("secondrule") < shown.index("askedtext")
    late = [rules[0], ask, {"role": "assistant", "content": "answer"}, rules[1], ask]
    if found_format(tokenizer_of(name)).abilities.later_systems:
        assert "secondrule" in tokenizer_text(name, late)
    else:
        with pytest.raises(RequestError, match=r"no system message after others, as 'secondrule': put its text"):
            tokenizer_text(name, late)


@every_template
def test_the_switch_of_reasoning_is_one_that_the_template_has(name: str) -> None:
    tokenizer = tokenizer_of(name)
    ask = [{"role": "user", "content": "first"}]
    if found_format(tokenizer).abilities.switch is None:
        with pytest.raises(RequestError, match="enable_thinking=True needs a chat template"):
            prepare_chat(tokenizer, ask, enable_thinking=True)
        return
    on, off = (prepare_chat(tokenizer, ask, tools=TOOLS, enable_thinking=value) for value in (True, False))
    assert on.prompt_token_ids != off.prompt_token_ids


@every_template
def test_marks_that_users_write_are_text(name: str) -> None:
    tokenizer = tokenizer_of(name)
    marks = sorted(set(tokenizer.special_token_texts.values()) - {"<s>", "</s>"})
    ask = [{"role": "user", "content": f"first {' '.join(marks)} last"}]
    plain = prepare_chat(tokenizer, [{"role": "user", "content": "first last"}]).prompt_token_ids
    special = set(tokenizer.special_token_texts)
    marked = [token for token in prepare_chat(tokenizer, ask).prompt_token_ids if token in special]
    assert marked == [token for token in plain if token in special]


def test_the_documented_table_is_what_is_found() -> None:
    if not template_names():
        template_source("none")
    assert documented() == table()


def tokenizer_text(name: str, turns: list[dict[str, Any]]) -> str:
    tokenizer = tokenizer_of(name)
    prompt = render_prompt(tokenizer, read_messages(turns), TOOLS, None, found_format(tokenizer))
    names = tokenizer.special_token_texts
    return b"".join(
        names[token].encode() if token in names else tokenizer.token_bytes[token] for token in prompt.token_ids
    ).decode()
