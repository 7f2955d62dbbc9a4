"""The store of constraints; grammars are compiled beside the prompt, and values only checked are sampled again."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_llm import (
    ConstraintError,
    ContextLengthError,
    Engine,
    EngineClosedError,
    InvalidOutputError,
    JSONSchema,
    RequestError,
    RequestTimeout,
    SamplingParams,
    Tool,
)
from mlx_agent_llm.constrain import service as service_module
from mlx_agent_llm.constrain.backends import CompiledConstraint, GrammarCompiler
from mlx_agent_llm.constrain.closing.spelling import Spelling
from mlx_agent_llm.constrain.grammars import read_constraint
from mlx_agent_llm.constrain.schema import SchemaGrammar
from mlx_agent_llm.constrain.service import ConstraintService
from mlx_agent_llm.errors import UnsupportedSchemaError
from mlx_agent_llm.languages.context_free import ContextFreeGrammar
from mlx_agent_llm.request.constraints import Constraint
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel

MakeEngine = Callable[..., Engine]

NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 3}
PARAMS = SamplingParams(max_tokens=40, temperature=1.0, seed=3, constraint=JSONSchema(NUMBERS))
FREE = SamplingParams(max_tokens=30, temperature=1.0, seed=4, ignore_eos=True)


UNIQUE = JSONSchema(
    {
        "type": "array",
        "items": {"type": "string", "maxLength": 3},
        "minItems": 2,
        "maxItems": 2,
        "uniqueItems": True,
        "contains": {},
    },
    strict=False,
)


class Gate:
    """Holds every compilation until it is opened, and makes it fail when it is told to."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.fault: Exception | None = None
        self.num_compiled = 0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, compile_now = Gate(), GrammarCompiler.compile

    def compile_later(self: GrammarCompiler, grammar: ContextFreeGrammar) -> CompiledConstraint:
        assert gate.is_open.wait(20)
        gate.num_compiled += 1
        if gate.fault is not None:
            raise gate.fault
        return compile_now(self, grammar)

    monkeypatch.setattr(GrammarCompiler, "compile", compile_later)
    yield gate
    gate.is_open.set()


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never happened")


def byte_service(eos_token_ids: tuple[int, ...] = (256,)) -> ConstraintService:
    tokens, control_texts = [*(bytes([byte]) for byte in range(256)), b""], {256: "<end>"}
    compiler = GrammarCompiler(tokens, 257, eos_token_ids, control_texts)
    return ConstraintService(compiler, Spelling(tokens, control_texts, eos_token_ids))


def test_equal_constraints_share_a_grammar_and_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "NUM_KEPT", 2)
    small = byte_service()
    first = small.prepare(JSONSchema({"const": 1}))
    assert small.prepare(JSONSchema({"const": 1})) is first
    small.prepare(JSONSchema({"const": 2}))
    assert small.prepare(JSONSchema({"const": 1})) is first
    small.prepare(JSONSchema({"const": 3}))
    assert small.prepare(JSONSchema({"const": 1})) is first
    assert len(small._entries._futures) == 2
    small.close()


def test_threads_compile_the_same_and_different_constraints_at_once() -> None:
    shared = byte_service()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(10):
                value = (seed + number) % 7
                matcher = shared.prepare(JSONSchema({"const": value})).compiled.result(20).matcher()
                assert json.loads(matcher.jump_forward()) == value
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert not failures


def test_a_constraint_that_was_checked_is_prepared_from_the_same_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Constraint] = []

    def count(constraint: Constraint) -> SchemaGrammar:
        read.append(constraint)
        return read_constraint(constraint)

    monkeypatch.setattr(service_module, "read_constraint", count)
    service = byte_service()
    assert service.check(UNIQUE) == (("", "uniqueItems"),) == service.check(UNIQUE)
    assert service.prepare(UNIQUE).checked == (("", "uniqueItems"),) and read == [UNIQUE]
    with pytest.raises(UnsupportedSchemaError, match="uniqueItems"):
        service.check(JSONSchema(UNIQUE.json_schema))
    service.close()


def test_the_grammar_of_a_schema_is_made_once() -> None:
    service = byte_service()
    service.check(JSONSchema({"type": "object", "required": ["once"]}))
    service.check(JSONSchema({"type": "object", "required": ["once"]}))
    assert len(service._entries._futures) == 1
    service.check(JSONSchema({"const": 1}))
    service.check(JSONSchema({"const": 1.0}))
    assert len(service._entries._futures) == 3
    service.close()


def test_the_schemas_of_tools_and_answers_are_checked_once_an_engine(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Constraint] = []

    def count(constraint: Constraint) -> SchemaGrammar:
        read.append(constraint)
        return read_constraint(constraint)

    monkeypatch.setattr(service_module, "read_constraint", count)
    engine = make_engine(ScriptedModel(["1"]))
    answer, tool = JSONSchema({"type": "integer"}), Tool("add", parameters={"type": "object", "properties": {"a": {}}})
    for _ in range(2):
        chat = engine.chat([{"role": "user", "content": "?"}], tools=[tool], response_format=answer)
        assert chat.parsed == 1
    assert [type(constraint).__name__ for constraint in read].count("JSONSchema") == 2 and len(read) == 3


def test_a_constraint_needs_an_end_token() -> None:
    with pytest.raises(ConstraintError, match="end token"):
        byte_service(eos_token_ids=()).prepare(JSONSchema({"type": "integer"}))


def test_the_prompt_is_computed_meanwhile_all_but_its_last_token(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    handle = engine.submit("p" * 100, PARAMS)
    wait_until(lambda: engine.stats().num_prompt_tokens_computed == 99)
    [beside] = engine.generate(["x"], FREE)
    assert engine.stats().num_prompt_tokens_computed == 100 and engine.stats().num_generated_tokens == 30
    gate.is_open.set()
    output = handle.result(timeout=20)
    [alone] = make_engine(RandomLogitsModel()).generate(["x"], FREE)
    assert beside.token_ids == alone.token_ids
    assert json.loads(output.text) and engine.stats().num_prompt_tokens_computed == 101
    assert engine.generate(["p" * 100], PARAMS)[0].token_ids == output.token_ids


@pytest.mark.parametrize("prompt", ["x", "p" * 64, "p" * 65])
def test_prompts_of_one_token_and_found_ones_wait_too_and_stall_nobody(
    make_engine: MakeEngine, gate: Gate, prompt: str
) -> None:
    engine = make_engine(RandomLogitsModel(), max_num_seqs=4)
    engine.generate([prompt], replace(FREE, max_tokens=1))  # now the prefix cache has it
    waiting = [engine.submit(prompt, replace(PARAMS, seed=seed)) for seed in range(3)]
    assert len(engine.generate(["y" * 40, "z"], FREE)) == 2
    gate.is_open.set()
    results = [handle.result(timeout=20) for handle in waiting]
    assert gate.num_compiled == 1, "once for all who ask"
    fresh = make_engine(RandomLogitsModel())
    for seed, result in enumerate(results):
        [expected] = fresh.generate([prompt], replace(PARAMS, seed=seed))
        assert result.token_ids == expected.token_ids


def test_n_samples_wait_for_one_grammar(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    threading.Timer(0.2, gate.is_open.set).start()
    outputs = engine.generate(["p" * 50], replace(PARAMS, n=4))
    assert engine.stats().num_prompt_tokens_computed == 50 + 3, "the prompt, and its last token for each other sample"
    assert len({output.token_ids for output in outputs}) > 1


def test_a_compilation_that_fails_fails_its_own_requests_alone(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    free, constrained = engine.submit("x", FREE), engine.submit("y" * 30, PARAMS)
    gate.fault = ConstraintError("the constraint is too complex")
    gate.is_open.set()
    with pytest.raises(ConstraintError, match="too complex"):
        constrained.result(timeout=20)
    assert len(free.result(timeout=20).token_ids) == 30
    gate.fault = None
    assert json.loads(engine.generate(["y"], PARAMS)[0].text), "it is tried again"


def test_a_request_is_cancelled_or_times_out_while_its_grammar_is_compiled(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    cancelled, late = engine.submit("x" * 20, PARAMS), engine.submit("y", replace(PARAMS, timeout=0.2))
    cancelled.cancel()
    assert cancelled.result(timeout=20).finish_reason == "cancelled"
    with pytest.raises(RequestTimeout):
        late.result(timeout=20)


def test_an_engine_is_closed_while_a_grammar_is_compiled(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    constraints = [JSONSchema({"const": number}) for number in range(5)]  # more than are compiled at the same time
    handles = [engine.submit("x", replace(PARAMS, constraint=constraint)) for constraint in constraints]
    engine.close()
    for handle in handles:
        with pytest.raises(EngineClosedError):
            handle.result(timeout=20)
    with pytest.raises(EngineClosedError):
        engine.submit("x", replace(PARAMS, constraint=JSONSchema({"type": "null"})))


def test_what_is_wrong_with_a_schema_is_raised_at_once(make_engine: MakeEngine, gate: Gate) -> None:
    engine = make_engine(RandomLogitsModel())
    for schema, kind in (
        ({"type": "array", "uniqueItems": True}, UnsupportedSchemaError),
        ({"$ref": "#/nowhere"}, ConstraintError),
        ({"type": "integer", "minimum": 2, "maximum": 1}, ConstraintError),
    ):
        with pytest.raises(kind):
            engine.submit("x", SamplingParams(constraint=JSONSchema(schema)))
    assert engine.stats().num_steps == 0


def test_a_budget_below_the_shortest_text_is_refused_with_the_minimum(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel(), max_model_len=100)
    constraint = JSONSchema({"type": "object", "properties": {"a": {"const": "x" * 20}}, "required": ["a"]})
    minimum = len('{"a": "' + "x" * 20 + '"}')
    with pytest.raises(RequestError, match=f"max_tokens={minimum - 1} must be at least {minimum}"):
        engine.submit("x", SamplingParams(max_tokens=minimum - 1, constraint=constraint))
    with pytest.raises(ContextLengthError, match=f"needs at least {minimum}"):
        engine.submit("p" * (101 - minimum), SamplingParams(max_tokens=50, constraint=constraint))
    assert engine.stats().num_steps == 0
    [output] = engine.generate(["p" * (100 - minimum)], SamplingParams(max_tokens=50, constraint=constraint))
    assert json.loads(output.text) == {"a": "x" * 20}


class FewWordsModel(RandomLogitsModel):
    """Writes almost nothing but quotes and the letter a, so that two strings are often the same."""

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        taste = np.zeros(self.tokenizer.vocab_size, np.float32)
        taste[[ord('"'), ord("a")]] = 12
        return super().__call__(inputs, cache) * 0.3 + mx.array(taste)


def test_a_value_that_breaks_what_is_only_checked_is_sampled_again(make_engine: MakeEngine) -> None:
    engine = make_engine(FewWordsModel())
    params = SamplingParams(max_tokens=40, temperature=1.0, constraint=UNIQUE)
    num_valid = num_again = num_failed = 0
    for seed in range(60):
        before = engine.stats().num_generated_tokens
        handle = engine.submit("x", replace(params, seed=seed))
        try:
            [delta] = list(handle)
        except InvalidOutputError as error:
            assert len(set(json.loads(error.text))) == 1 and "non-unique" in str(error)
            num_failed += 1
        else:
            assert len(set(json.loads(delta.text))) == 2 and delta.finish_reason == "stop"
            output = handle.result()
            assert output.checked == delta.checked == (("", "uniqueItems"),)
            assert output.usage.completion_tokens == len(output.token_ids) == len(output.text)
            num_valid += 1
            num_again += engine.stats().num_generated_tokens - before > len(output.token_ids)
    assert num_valid > 30 and num_again > 5 and 0 < num_failed < 15


def test_the_last_attempt_that_fails_fails_the_request_with_its_text(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(['["b", "b"]']))
    params = SamplingParams(max_tokens=40, temperature=1.0, constraint=UNIQUE)
    with pytest.raises(InvalidOutputError, match="non-unique") as caught:
        engine.generate(["x"], params)
    assert caught.value.text == '["b", "b"]'
    assert engine.stats().num_generated_tokens == 3 * len('["b", "b"]')
    with pytest.raises(InvalidOutputError):
        engine.generate(["x"], replace(params, temperature=0.0))
    assert engine.stats().num_generated_tokens == 4 * len('["b", "b"]'), (
        "at temperature 0 every attempt would be the same"
    )


def test_a_stream_shows_nothing_before_it_was_checked(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(['["a", "b"]']))
    [delta] = engine.stream("x", SamplingParams(max_tokens=40, constraint=UNIQUE, logprobs=0))
    assert delta.text == '["a", "b"]' and delta.logprobs is not None and len(delta.logprobs) == 10


def test_a_checked_request_that_is_cancelled_ends_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(['["a", "' + "b" * 1000]))
    schema = {**UNIQUE.json_schema, "items": {"type": "string"}}
    constraint = JSONSchema(schema, strict=False)
    handle = engine.submit("x", SamplingParams(max_tokens=900, temperature=1.0, constraint=constraint))
    wait_until(lambda: engine.stats().num_generated_tokens > 10)
    handle.cancel()
    output = handle.result(timeout=20)
    assert output.finish_reason == "cancelled" and output.text.startswith('["a", "b')


def test_a_strict_schema_refuses_what_the_other_one_checks(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    with pytest.raises(UnsupportedSchemaError, match="uniqueItems"):
        engine.submit("x", SamplingParams(constraint=JSONSchema(UNIQUE.json_schema)))
    with pytest.raises(ConstraintError, match="strict='no'"):
        JSONSchema(NUMBERS, strict="no")  # type: ignore[arg-type]
    [output] = engine.generate(["x"], replace(PARAMS, constraint=JSONSchema(NUMBERS, strict=False)))
    assert output.checked == (), "all of it is enforced"


def test_a_fork_cannot_begin_anew(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    handle = engine.submit("x", replace(FREE, max_tokens=1000))
    with pytest.raises(RequestError, match="a fork cannot have"):
        handle.fork(SamplingParams(constraint=UNIQUE))
    handle.cancel()
