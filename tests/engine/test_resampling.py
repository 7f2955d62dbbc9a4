"""Answers of a chat that are only checked: held back and sampled again beside reasoning and tools as they are alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

from mlx_agent_llm import Engine, InvalidOutputError, JSONSchema, SamplingParams, Tool
from mlx_agent_llm.constrain.grammars import read_constraint
from mlx_agent_llm.engine.resampling import CheckedDelivery
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.request import Delta
from mlx_agent_llm.testing import ScriptedModel
from tests.support.tool_templates import OPENED, PLAIN, THINKING, TemplateTokenizer, template_of

MakeEngine = Callable[..., Engine]

ASK = [{"role": "user", "content": "x"}]
NOW = Tool("now")
PAIR = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 2,
    "maxItems": 2,
    "uniqueItems": True,
    "contains": {"type": "string"},
}
UNIQUE = JSONSchema({**PAIR, "items": {"type": "string", "maxLength": 9}}, strict=False)


class Case(NamedTuple):
    """A chat template, what the model writes before its answer, and what else is asked for."""

    template: str
    before: str = ""
    reasoning: str = ""
    after: str = ""
    options: Mapping[str, Any] = MappingProxyType({})

    def reply(self, answer: str) -> str:
        return self.before + answer + self.after


CASES = {
    "nothing else": Case(PLAIN),
    "reasoning": Case(THINKING, "<think>Hm.</think>\n\n", "Hm."),
    "no reasoning where some may be": Case(THINKING),
    "reasoning that the prompt opened": Case(OPENED, "Hm.\n</think>\n", "Hm."),
    "reasoning with a limit": Case(OPENED, "Hm, ________", "Hm,", options={"max_reasoning_tokens": 4}),
    "tools": Case(template_of("generic_json"), options={"tools": [NOW]}),
    "reasoning and tools": Case(THINKING, "<think>Hm.</think>", "Hm.", options={"tools": [NOW]}),
    "channels": Case(
        template_of("harmony"),
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>",
        "Hm.",
        options={"tools": [NOW]},
    ),
    "marks around answers": Case(template_of("command_r"), "<|START_RESPONSE|>", after="<|END_RESPONSE|>"),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


class UndecidedModel(ScriptedModel):
    """Says what it is told to, but by chance "a" or "b" where that is "?"."""

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        wanted: mx.array = self.model(inputs, cache)
        tokens = mx.arange(self.tokenizer.vocab_size)
        is_either = (tokens == ord("a")) | (tokens == ord("b"))
        return mx.where(mx.where(wanted == ord("?"), is_either, tokens == wanted), 100.0, 0.0)


@pytest.fixture
def start(make_engine: MakeEngine) -> Callable[[str, str], Engine]:
    """Make an engine with this chat template whose model gives this reply."""

    def make(template: str, reply: str) -> Engine:
        return make_engine(from_parts(UndecidedModel(lambda prompt: reply), TemplateTokenizer(template)))

    return make


def sampled(seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=200, temperature=1.0, seed=seed)


@every_case
def test_an_answer_that_breaks_what_is_only_checked_is_sampled_again(
    start: Callable[[str, str], Engine], case: Case
) -> None:
    reply = case.reply('["a", "?"]')
    engine = start(case.template, reply)
    num_first = num_again = num_failed = 0
    for seed in range(16):
        before = engine.stats().num_generated_tokens
        try:
            output = engine.chat(ASK, response_format=UNIQUE, params=sampled(seed), **case.options)
        except InvalidOutputError as error:
            assert error.text.endswith('["a", "a"]' + case.after) and "non-unique" in str(error)
            num_failed += 1
            continue
        assert (output.parsed, output.text, output.reasoning) == (["a", "b"], '["a", "b"]', case.reasoning)
        assert output.checked == (("", "uniqueItems"),) and output.finish_reason == "stop"
        assert output.usage.completion_tokens == len(reply), "of the attempt that passed"
        is_again = engine.stats().num_generated_tokens - before > len(reply)
        num_again, num_first = num_again + is_again, num_first + (not is_again)
    assert num_first > 2 and num_again > 1 and num_failed < 8


@every_case
def test_an_answer_that_never_passes_fails_with_its_text(start: Callable[[str, str], Engine], case: Case) -> None:
    reply = case.reply('["b", "b"]')
    engine = start(case.template, reply)
    with pytest.raises(InvalidOutputError, match=r"the output breaks the schema at .*non-unique") as caught:
        engine.chat(ASK, response_format=UNIQUE, params=sampled(1), **case.options)
    assert caught.value.text.endswith('["b", "b"]' + case.after)
    assert engine.stats().num_generated_tokens == 3 * len(reply)
    with pytest.raises(InvalidOutputError):
        list(engine.stream_chat(ASK, response_format=UNIQUE, params=SamplingParams(temperature=0.0), **case.options))
    assert engine.stats().num_generated_tokens == 4 * len(reply), "at temperature 0 all would be the same"


@every_case
def test_a_stream_shows_nothing_before_the_answer_was_checked(start: Callable[[str, str], Engine], case: Case) -> None:
    reply = case.reply('["a", "b"]')
    engine = start(case.template, reply)
    stream = engine.stream_chat(ASK, response_format=UNIQUE, params=sampled(1), **case.options)
    next(stream)
    assert engine.stats().num_generated_tokens == len(reply)
    assert list(stream)[-1].parsed == ["a", "b"]


@pytest.mark.parametrize("template", [PLAIN, THINKING])
def test_calls_beside_an_answer_that_is_checked_are_not(start: Callable[[str, str], Engine], template: str) -> None:
    reply = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    engine = start(template, reply)
    output = engine.chat(ASK, tools=[NOW], parallel_tool_calls=False, response_format=UNIQUE, params=sampled(1))
    assert [call.name for call in output.tool_calls] == ["now"] and output.checked == ()
    assert (output.parsed, output.parse_error, output.finish_reason) == (None, None, "tool_calls")
    required = engine.chat(ASK, tools=[NOW], tool_choice="now", response_format=UNIQUE, params=sampled(1))
    assert len(required.tool_calls) == 1 and required.checked == ()


def test_an_answer_whose_grammar_says_it_all_streams_as_it_comes(start: Callable[[str, str], Engine]) -> None:
    engine = start(THINKING, '<think>Hm.</think>["a", "a"]')
    schema = {name: value for name, value in PAIR.items() if name != "uniqueItems"}
    deltas = list(engine.stream_chat(ASK, response_format=JSONSchema(schema, strict=False), params=sampled(1)))
    assert len([delta for delta in deltas if delta.text]) > 5
    assert deltas[-1].parsed == ["a", "a"] and deltas[-1].checked == ()


def test_a_text_that_is_nested_too_deeply_to_be_read_is_an_error_of_its_request() -> None:
    deltas: list[Delta] = []
    schema = JSONSchema({"type": "array", "items": {"$ref": "#"}, "uniqueItems": True}, strict=False)
    params = SamplingParams(constraint=schema)
    take = CheckedDelivery(params, 0, read_constraint(schema).checked, deltas.append, lambda seed: None)
    take(Delta("[" * 100_000 + "]" * 100_000, finish_reason="stop"))
    [delta] = deltas
    assert isinstance(delta.error, InvalidOutputError) and "the output is no JSON" in str(delta.error)


TAGS = Tool(
    "tag", "", {"type": "object", "properties": {"tags": UNIQUE.json_schema}, "required": ["tags"]}, strict=False
)


def tagged(second: str) -> str:
    return f'<tool_call>{{"name": "tag", "arguments": {{"tags": ["a", "{second}"]}}}}</tool_call>'


def test_calls_of_a_tool_that_is_not_strict_are_checked_and_sampled_again(start: Callable[[str, str], Engine]) -> None:
    engine = start(template_of("generic_json"), tagged("?"))
    num_failed = 0
    for seed in range(8):
        try:
            output = engine.chat(ASK, tools=[TAGS], parallel_tool_calls=False, params=sampled(seed))
        except InvalidOutputError:
            num_failed += 1
            continue
        assert [call.arguments for call in output.tool_calls] == [{"tags": ["a", "b"]}]
        assert output.checked == (("/properties/tags", "uniqueItems"),)
    assert num_failed < 5 and engine.stats().num_generated_tokens > 8 * len(tagged("?"))


def test_a_call_that_stays_invalid_fails_the_request(start: Callable[[str, str], Engine]) -> None:
    engine = start(template_of("generic_json"), tagged("a"))
    with pytest.raises(InvalidOutputError, match=r"arguments.tags"):
        engine.chat(ASK, tools=[TAGS], tool_choice="required", params=sampled(1))
