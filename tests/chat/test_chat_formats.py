"""Tool formats through prompts and the engine: templates, control tokens, reasoning, and every choice obeyed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import ChatOutput, Engine, EngineConfig, JSONSchema, SamplingParams
from mlx_agent_llm.chat import TOOL_FORMATS, Tool, fold_chat, parse_reply, prepare_chat
from mlx_agent_llm.errors import InvalidOutputError, RequestError
from mlx_agent_llm.models import LoadedModel
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel
from tests.support.replies import assert_obeys
from tests.support.search import examples
from tests.support.tool_templates import OPENED, PLAIN, THINKING, TemplateTokenizer, template_of

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
SAY = Tool(
    "say",
    "Says.",
    {
        "type": "object",
        "properties": {"text": {"type": "string"}, "loud": {"type": ["boolean", "null"]}},
        "required": ["text"],
    },
)
TOOLS = (ADD, SAY)
ASK = [{"role": "user", "content": "x"}]
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NAMES = sorted(TOOL_FORMATS)
NATIVE = [name for name in NAMES if name not in ("generic_json", "smollm2")]
every_format = pytest.mark.parametrize("name", NAMES)


# ---- with logits without sense


@every_format
def test_every_choice_is_obeyed(name: str) -> None:
    check_every_choice(name, 3)


@pytest.mark.long
@pytest.mark.timeout(3600)
@every_format
def test_every_choice_is_obeyed_a_thousand_times(name: str) -> None:
    check_every_choice(name, 1000)


def check_every_choice(name: str, num_runs: int) -> None:
    tokenizer = TemplateTokenizer.of(name)
    model = RandomLogitsModel(tokenizer.vocab_size, seed=5)
    config = EngineConfig(kv_cache_tokens=65_536, max_model_len=8192, max_num_seqs=32)
    with Engine.from_parts(model, tokenizer, config) as engine:
        for choice in ("auto", "required", "none", "say"):
            for output in asyncio.run(answers(engine, choice, num_runs)):
                check(output, choice)


async def answers(engine: Engine, choice: str, num_runs: int) -> list[ChatOutput]:
    params = [SamplingParams(max_tokens=160 - seed % 9, temperature=1.0, seed=seed) for seed in range(num_runs)]
    calls = (engine.achat(ASK, tools=TOOLS, tool_choice=choice, params=one) for one in params)
    return await asyncio.gather(*calls)


def check(output: ChatOutput, choice: str) -> None:
    """Assert that a reply is what the choice asks for, also where its budget ended it."""
    assert_obeys(output, choice, TOOLS)
    assert len({call.id for call in output.tool_calls}) == len(output.tool_calls)
    if choice == "say":
        assert [call.name for call in output.tool_calls] == ["say"]
    assert output.finish_reason in (("tool_calls", "length") if output.tool_calls else ("stop", "length"))


# ---- prompts


@pytest.mark.parametrize("name", NATIVE)
def test_a_template_that_knows_tools_gets_them(name: str) -> None:
    tokenizer = TemplateTokenizer.of(name)
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7}'}}
    history = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "seven", "tool_call_id": "c1"},
    ]
    prompt = tokenizer.show(prepare_chat(tokenizer, history, tools=TOOLS).prompt_token_ids)
    assert json.loads(prompt.removeprefix("<|im_start|>tools\n").split("<|im_end|>")[0])[0]["function"]["name"] == "add"
    parsed = parse_reply(TOOL_FORMATS[name], prompt.split("assistant\n")[1].split("<|im_end|>")[0], TOOLS)
    assert [(one.name, one.arguments) for one in parsed.tool_calls] == [("add", {"a": 7})]
    assert "<|im_start|>tool\nseven<|im_end|>" in prompt and "You can call these tools" not in prompt


def test_a_template_without_tools_gets_instructions_in_the_format_that_was_named() -> None:
    tokenizer = TemplateTokenizer.of("generic_json")
    prompt = tokenizer.show(prepare_chat(tokenizer, ASK, tools=TOOLS, tool_format="mistral").prompt_token_ids)
    assert prompt.startswith("<|im_start|>system\nYou can call these tools:\n") and "[TOOL_CALLS]name[ARGS]" in prompt


def test_what_a_template_raises_is_the_message_of_the_error() -> None:
    tokenizer = TemplateTokenizer("{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}")
    tokenizer._template.globals["raise_exception"] = refuse
    assert prepare_chat(tokenizer, ASK)
    with pytest.raises(RequestError, match="refuses these messages: one turn"):
        prepare_chat(tokenizer, [*ASK, *ASK])


def refuse(message: str) -> None:
    raise TypeError(message)


PIECES = st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>",
        "<|im_",
        "end|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "a",
        "é",
        "\n",
        " ",
        "\ue000",
        "<|im_<|im_end|>end|>",
    ]
)


@settings(max_examples=examples(60))
@given(texts=st.lists(st.lists(PIECES, max_size=5).map("".join), min_size=4, max_size=4))
def test_control_tokens_that_users_write_are_text(texts: list[str]) -> None:
    tokenizer = TemplateTokenizer.of("mistral")
    system, user, argument, result = texts
    tools = [Tool("say", user + "d", {"type": "object", "properties": {"text": {"type": "string"}}})]
    arguments = json.dumps({"text": argument}, ensure_ascii=False)
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "say", "arguments": arguments}}
    history = [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": result, "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": "abcdefghi"},
    ]
    chat = prepare_chat(tokenizer, history, tools=tools)
    control = [tokenizer.special_token_texts[one] for one in chat.prompt_token_ids if one >= 256]
    turns = ["<|im_start|>", "<|im_end|>"]
    assert control == [*turns * 3, "<|im_start|>", "[TOOL_CALLS]", "[ARGS]", "<|im_end|>", *turns, "<|im_start|>"]
    shown = tokenizer.show(chat.prompt_token_ids)
    for text in (system, user, result, json.dumps(argument, ensure_ascii=False)):
        assert text in shown, "nothing of the content is changed"


# ---- reasoning

SWITCHED = THINKING + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


def scripted(template: str, reply: str) -> tuple[ScriptedModel, TemplateTokenizer]:
    """A model that gives this reply after any prompt."""
    return ScriptedModel(lambda prompt: reply), TemplateTokenizer(template)


def ask(template: str, reply: str, **options: Any) -> ChatOutput:
    model, tokenizer = scripted(template, reply)
    with Engine.from_parts(model, tokenizer, EngineConfig(kv_cache_tokens=4096)) as engine:
        whole = engine.chat(ASK, **options)
        deltas = list(engine.stream_chat(ASK, **options))
        assert "".join(delta.reasoning for delta in deltas) == whole.reasoning
        return whole


def test_reasoning_is_told_from_the_answer_and_counted() -> None:
    output = ask(THINKING, "<think>\nHm. No.\n</think>\n\nYes.")
    assert (output.reasoning, output.text) == ("Hm. No.", "Yes.")
    assert output.usage.reasoning_tokens == len("<think>\nHm. No.\n</think>")
    assert output.usage.completion_tokens == len("<think>\nHm. No.\n</think>\n\nYes.") + 1


def test_a_block_that_the_prompt_opened_needs_no_beginning() -> None:
    output = ask(OPENED, "Hm.\n</think>\n\nYes.")
    assert (output.reasoning, output.text, output.usage.reasoning_tokens) == ("Hm.", "Yes.", len("Hm.\n</think>"))


def test_a_reply_without_reasoning_has_none() -> None:
    output = ask(THINKING, "Yes.")
    assert (output.reasoning, output.text, output.usage.reasoning_tokens) == ("", "Yes.", 0)


def test_a_model_whose_template_has_no_reasoning_may_write_its_marks() -> None:
    output = ask(PLAIN, "<think>x</think>y")
    assert (output.reasoning, output.text) == ("", "<think>x</think>y")


def test_constraints_begin_behind_the_reasoning() -> None:
    output = ask(THINKING, '<think>{"n": 1}</think>\n{"n": 2}', response_format=ANSWER)
    assert (output.reasoning, output.parsed, output.finish_reason) == ('{"n": 1}', {"n": 2}, "stop")
    output = ask(OPENED, 'x</think>\n\n<tool_call>{"name": "add"', tools=[ADD], tool_choice="required")
    assert output.reasoning == "x" and [call.name for call in output.tool_calls] == ["add"]


@pytest.mark.parametrize("limit", [0, 1, 5, 11])
@pytest.mark.parametrize("template", [THINKING, OPENED])
def test_reasoning_ends_at_its_limit(template: str, limit: int) -> None:
    opened = "" if template is OPENED else "<think>"
    thought = "one two é three"
    output = ask(template, opened + thought * 3, max_reasoning_tokens=limit + len(opened))
    written = thought.encode()[:limit]
    whole_characters = 9 if limit == 9 else limit
    assert output.reasoning == written[:whole_characters].decode(errors="ignore").rstrip() or limit in (9,)
    assert output.usage.reasoning_tokens == len(opened) + limit + len("</think>")


def test_a_limit_within_a_character_waits_for_its_end() -> None:
    output = ask(OPENED, "é" * 30, max_reasoning_tokens=3)
    assert output.reasoning == "éé" and output.usage.reasoning_tokens == 4 + len("</think>")


def test_a_limit_holds_beside_a_constraint() -> None:
    output = ask(OPENED, "round and round it goes for ever and ever", response_format=ANSWER, max_reasoning_tokens=9)
    assert output.reasoning == "round and" and set(output.parsed) == {"n"}


def test_without_a_switch_reasoning_turned_off_is_the_model_as_it_is() -> None:
    assert ask(THINKING, "<think>Hm.</think>Yes.", enable_thinking=False).reasoning == "Hm."


def test_a_template_with_levels_of_reasoning_gets_the_level() -> None:
    tokenizer = TemplateTokenizer(
        template_of("generic_json") + "{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}"
    )
    prompt = prepare_chat(tokenizer, [{"role": "user", "content": "Hi"}], enable_thinking="low").prompt_token_ids
    assert tokenizer.decode(prompt).endswith("low")


def test_the_templates_own_switch_turns_reasoning_off() -> None:
    output = ask(SWITCHED, "</think>Yes.", enable_thinking=False)
    assert (output.reasoning, output.text) == ("", "</think>Yes.")
    assert ask(SWITCHED, "<think>Hm.</think>Yes.", enable_thinking=True).reasoning == "Hm."


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (
            THINKING,
            {"enable_thinking": True},
            "enable_thinking=True needs a chat template that renders otherwise with it: this one does not; None",
        ),
        (THINKING, {"enable_thinking": "low"}, "enable_thinking='low' needs a chat template with levels"),
        (
            SWITCHED,
            {"enable_thinking": "no"},
            "enable_thinking='no' must be True, False, None, 'low', 'medium' or 'high'",
        ),
        (THINKING, {"max_reasoning_tokens": -1}, "max_reasoning_tokens=-1 must be at least 0"),
        (THINKING, {"max_reasoning_tokens": 1.5}, "max_reasoning_tokens=1.5 must be an integer"),
        (template_of("generic_json"), {"max_reasoning_tokens": 5}, "max_reasoning_tokens=5 needs a model whose"),
    ],
)
def test_bad_options_of_reasoning_are_refused(template: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ask(template, "x", **options)


def test_the_reasoning_of_earlier_turns_goes_to_the_template() -> None:
    tokenizer = TemplateTokenizer(THINKING)
    history = [*ASK, {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}, *ASK]
    assert "<think>Hm.</think>Yes." in tokenizer.show(prepare_chat(tokenizer, history).prompt_token_ids)
    with pytest.raises(RequestError, match=r"messages\[0\].reasoning_content='x' must be a text, in a message of role"):
        prepare_chat(tokenizer, [{"role": "user", "content": "", "reasoning_content": "x"}])


def test_an_engine_can_be_told_its_format() -> None:
    model, tokenizer = scripted(template_of("generic_json"), "[TOOL_CALLS]add[ARGS]")
    with Engine.from_parts(model, tokenizer, EngineConfig(kv_cache_tokens=4096, tool_format="mistral")) as engine:
        (call,) = engine.chat(ASK, tools=[ADD], parallel_tool_calls=False).tool_calls
    assert call.name == "add" and len(call.id) == 9
    with pytest.raises(RequestError, match="tool_format='morse' must be 'auto' or one of"):
        Engine.from_parts(model, tokenizer, EngineConfig(kv_cache_tokens=4096, tool_format="morse"))


# ---- the demo model


def test_the_demo_model_obeys_every_choice(demo_engine: Engine) -> None:
    check_demo(demo_engine, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_demo_model_obeys_every_choice_twenty_times(demo_engine: Engine) -> None:
    check_demo(demo_engine, 20)


def check_demo(engine: Engine, num_prompts: int) -> None:
    choices = ("auto", "none", "required", "say")
    asks = [(f"Please add {number}.", choice) for number in range(num_prompts) for choice in choices]
    for output, (_, choice) in zip(asyncio.run(demo_answers(engine, asks)), asks, strict=True):
        check(output, choice)


async def demo_answers(engine: Engine, asks: list[tuple[str, str]]) -> list[ChatOutput]:
    params = SamplingParams(max_tokens=40)
    chats = (
        engine.achat([{"role": "user", "content": text}], tools=TOOLS, tool_choice=choice, params=params)
        for text, choice in asks
    )
    return await asyncio.gather(*chats)


def test_the_demo_model_is_told_of_tools_as_it_was_trained(demo: LoadedModel) -> None:
    prompt = demo.tokenizer.decode(prepare_chat(demo.tokenizer, ASK, tools=TOOLS).prompt_token_ids)
    assert "<tools>" in prompt and '<tool_call>[{"name": "...", "arguments": {...}}]</tool_call>' in prompt


def test_what_a_lenient_answer_beside_tools_does_not_keep_to_is_said() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "contains": {"type": "string"}}
    reply = '<think></think>["a", "a"]'
    with pytest.raises(InvalidOutputError, match="non-unique") as caught:
        ask(THINKING, reply, tools=[ADD], response_format=JSONSchema(schema, strict=False))
    assert caught.value.text == reply


# ---- stop texts

CALLING = 'One moment.<tool_call>{"name": "say", "arguments": {"text": "One <tool_call> moment."}}</tool_call>'


def stopped(reply: str, params: SamplingParams, **options: Any) -> ChatOutput:
    """The reply of a model that wants to give it; whole and streamed it is the same."""
    model = ScriptedModel([reply])
    with Engine.from_parts(model, model.tokenizer, EngineConfig(kv_cache_tokens=16_384)) as engine:
        whole = engine.chat(ASK, params=params, **options)
        streamed = fold_chat(engine.stream_chat(ASK, params=params, **options))
    assert (streamed.text, streamed.finish_reason) == (whole.text, whole.finish_reason)
    assert [call.arguments for call in streamed.tool_calls] == [call.arguments for call in whole.tool_calls]
    return whole


def stops(*texts: str, **fields: Any) -> SamplingParams:
    return SamplingParams(stop=texts, max_tokens=200, temperature=0, **fields)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (stops("<tool", '"', "}", "One m<"), "One moment."),
        (stops("moment"), "One "),
        (stops(stop_token_ids=[ord("}"), ord("q")]), "One moment."),
        (stops(stop_token_ids=[ord("m")]), "One "),
    ],
)
def test_what_ends_text_ends_no_call(params: SamplingParams, text: str) -> None:
    output = stopped(CALLING, params, tools=[SAY])
    assert (output.text, output.invalid_tool_calls) == (text, ())
    assert bool(output.tool_calls) == (text == "One moment.")


def test_half_of_a_mark_is_a_stop_text_where_no_call_follows() -> None:
    output = stopped("One <tool more", stops("<tool"), tools=[SAY])
    assert (output.text, output.finish_reason) == ("One ", "stop")


@pytest.mark.parametrize("template", [PLAIN, THINKING])
def test_a_stop_text_has_no_place_where_a_reply_has_no_free_text(template: str) -> None:
    params = stops("{", "<", stop_token_ids=[ord('"')])
    assert ask(template, '{"n": 2}', response_format=ANSWER, params=params).parsed == {"n": 2}
    assert ask(template, CALLING, tools=[SAY], tool_choice="required", params=params).tool_calls


def test_a_call_is_complete_at_every_budget_whatever_the_stop_text() -> None:
    model = ScriptedModel([CALLING])
    with Engine.from_parts(model, model.tokenizer, EngineConfig(kv_cache_tokens=16_384)) as engine:
        for max_tokens in range(12, 100, 8):
            params = SamplingParams(stop=["<to", '"', "}"], max_tokens=max_tokens, temperature=0)
            output = engine.chat(ASK, tools=[SAY], params=params)
            assert not output.invalid_tool_calls
            assert all(isinstance(call.arguments["text"], str) for call in output.tool_calls)
