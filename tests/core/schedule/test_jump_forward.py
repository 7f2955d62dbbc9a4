"""Jump-forward and forced closes in the engine, on grammars read by the pushdown alone."""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from mlx_agent_llm import Engine, GenerationError, Handle, SamplingParams
from mlx_agent_llm.constrain.closing.close_in_time import CloseInTime
from mlx_agent_llm.constrain.closing.closing import Closing
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.languages.context_free import ChoiceNode, ContextFreeGrammar, RuleNode, SequenceNode, TextNode
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel
from tests.support.grammars import JSON, PERSON, PushdownMatcher

MakeEngine = Callable[..., Engine]
_IDS = itertools.count(10**6)


def submit(engine: Engine, grammar: ContextFreeGrammar, params: SamplingParams, prompt: str = "x") -> Handle:
    """Submit a request whose grammar no backend compiles."""
    handle = Handle(cancel=lambda: engine._worker.abort(request.request_id))
    request = make_request(engine, grammar, params, prompt, handle)
    engine._worker.call(lambda core: core.add(request))
    return handle


def make_request(
    engine: Engine, grammar: ContextFreeGrammar, params: SamplingParams, prompt: str, handle: Handle
) -> Request:
    matcher = PushdownMatcher(grammar, engine.tokenizer.token_bytes, min(engine.tokenizer.eos_token_ids))
    budget = CloseInTime(Closing(grammar, engine._spelling))
    token_ids = engine.tokenizer.encode(prompt)
    return Request(next(_IDS), token_ids, params, params.seed or 0, handle.deliver, matcher, None, budget)


PERSON_TEXT = '{"name": "Ada", "age": 36, "address": {"street": "St James", "town": "London"}}'
FREE = SamplingParams(max_tokens=400, temperature=1.0, seed=5)


def with_and_without(make_engine: MakeEngine, model: object, **config: object) -> tuple[Engine, Engine]:
    return make_engine(model, **config), make_engine(model, jump_forward=False, **config)


def test_forced_text_comes_at_once_and_the_result_is_the_same(make_engine: MakeEngine) -> None:
    jumping, plain = with_and_without(make_engine, ScriptedModel([PERSON_TEXT]))
    deltas = list(submit(jumping, PERSON, FREE))
    expected = submit(plain, PERSON, FREE).result()
    forced = [delta.token_ids for delta in deltas if len(delta.token_ids) > 1]
    assert [bytes(token_ids).decode() for token_ids in forced] == [
        '{"name": "', ', "age": ', ' "address": {"street": "', ', "town": "', "}}",
    ]  # fmt: skip
    assert jumping.stats().num_forced_tokens == sum(map(len, forced)) and plain.stats().num_forced_tokens == 0
    assert tuple(token_id for delta in deltas for token_id in delta.token_ids) == expected.token_ids
    assert expected.text == PERSON_TEXT and deltas[-1].finish_reason == expected.finish_reason == "stop"
    assert deltas[-1].usage == expected.usage
    num_sampled = len(expected.token_ids) - sum(map(len, forced))
    assert jumping.stats().num_steps <= num_sampled + 2 * len(forced) + 1 < plain.stats().num_steps


PEOPLE = ContextFreeGrammar(
    SequenceNode((TextNode("["), PERSON.root, RuleNode("more"))),
    {"more": ChoiceNode((TextNode("]"), SequenceNode((TextNode(", "), PERSON.root, RuleNode("more")))))},
)


@pytest.mark.parametrize("grammar", [PERSON, PEOPLE])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"max_num_seqs": 3, "kv_cache_tokens": 512},
        {"max_tokens_per_step": 8, "max_num_seqs": 8, "block_size": 4},
        {"kv_cache_tokens": 256, "block_size": 2},
    ],
)
def test_random_texts_are_the_same_with_and_without_it_in_any_batch(
    make_engine: MakeEngine, grammar: ContextFreeGrammar, config: dict[str, object]
) -> None:
    """The logits are a function of the last token and its position, so a token computed at a wrong place shows."""
    outputs = []
    for engine in with_and_without(make_engine, RandomLogitsModel(scale=2.0), **config):
        handles = [
            submit(engine, grammar, replace(FREE, seed=seed, max_tokens=63 + 7 * seed), "prompt " * (seed % 5) + "x")
            for seed in range(8)
        ]
        outputs.append([handle.result(timeout=60) for handle in handles])
        assert (engine.stats().num_forced_tokens > 0) == engine.config.jump_forward
    for jumped, plain in zip(*outputs, strict=True):
        assert (jumped.text, jumped.token_ids, jumped.finish_reason) == (
            plain.text,
            plain.token_ids,
            plain.finish_reason,
        )
        assert (jumped.forced_close, jumped.usage.completion_tokens) == (plain.forced_close, len(plain.token_ids))
        json.loads(jumped.text)


def test_attention_over_what_was_forced_is_the_same_as_token_by_token(make_engine: MakeEngine) -> None:
    outputs = []
    for engine in with_and_without(make_engine, None, block_size=8):
        handles = [submit(engine, PEOPLE, replace(FREE, seed=seed, max_tokens=300)) for seed in range(4)]
        outputs.append([handle.result(timeout=60) for handle in handles])
        assert (engine.stats().num_forced_tokens > 0) == engine.config.jump_forward
    assert [one.token_ids for one in outputs[0]] == [one.token_ids for one in outputs[1]]


def test_what_a_jump_wrote_is_found_again_by_the_next_turn(make_engine: MakeEngine) -> None:
    engine, params = make_engine(ScriptedModel([PERSON_TEXT]), block_size=4), SamplingParams(max_tokens=100)
    output = submit(engine, PERSON, params).result()
    history = [*engine.tokenizer.encode("x"), *output.token_ids]
    [again] = engine.generate([history], SamplingParams(max_tokens=8))
    assert again.usage.cached_tokens == (len(history) - len("}}") - 1) // 4 * 4, "the last forced ones need no forward"


def test_tokens_that_close_a_text_are_never_found_as_computed(make_engine: MakeEngine) -> None:
    """A scripted model reads its prompt back through the block tables, and raises on a slot that nobody wrote."""
    reply = '[[[[["' + "a" * 200
    engine = make_engine(ScriptedModel(lambda prompt: reply), block_size=2)
    for max_tokens in range(12, 30):
        output = submit(engine, JSON, SamplingParams(max_tokens=max_tokens)).result()
        assert output.forced_close and len(output.token_ids) == max_tokens
        assert output.text == reply[: max_tokens - 6] + '"]]]]]'
        history = [*engine.tokenizer.encode("x"), *output.token_ids, ord("?")]
        engine.generate([history], SamplingParams(max_tokens=2))
    cached = engine.generate([history], SamplingParams(max_tokens=2))[0].usage.cached_tokens
    assert cached >= len(history) - 3


def test_a_request_for_logprobs_is_sampled_token_by_token_and_knows_none_of_closing_tokens(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(RandomLogitsModel())
    params = replace(FREE, max_tokens=70, logprobs=2)
    output = submit(engine, PERSON, params).result()
    assert engine.stats().num_forced_tokens == 0 and output.logprobs is not None
    assert [logprob.token_id for logprob in output.logprobs] == list(output.token_ids)
    is_known = [not math.isnan(logprob.logprob) for logprob in output.logprobs]
    assert output.forced_close and is_known == sorted(is_known, reverse=True) and not is_known[-1]
    assert all(len(one.top) == (2 if known else 0) for one, known in zip(output.logprobs, is_known, strict=True))


def test_penalties_count_forced_tokens(make_engine: MakeEngine) -> None:
    params = replace(FREE, max_tokens=120, frequency_penalty=1.5, repetition_penalty=1.3)
    jumping, plain = with_and_without(make_engine, RandomLogitsModel(scale=3.0))
    outputs = [submit(engine, PERSON, params).result() for engine in (jumping, plain)]
    assert outputs[0].token_ids == outputs[1].token_ids


def test_a_request_that_is_cancelled_behind_a_jump_leaves_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    for _ in range(10):
        handle = submit(engine, PERSON, FREE)
        for delta in handle:
            if len(delta.token_ids) > 1:
                break
        handle.cancel()
        assert handle.result().finish_reason == "cancelled"


def test_free_rows_beside_it_do_not_change(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    params = SamplingParams(max_tokens=80, temperature=1.0, seed=9, ignore_eos=True)
    [alone] = engine.generate(["y"], params)
    handles = [submit(engine, PERSON, replace(FREE, seed=seed)) for seed in range(4)]
    [beside] = engine.generate(["y"], params)
    assert beside.token_ids == alone.token_ids
    assert all(json.loads(handle.result().text) for handle in handles)


def test_a_stop_string_within_forced_text_ends_it_there(make_engine: MakeEngine) -> None:
    for engine in with_and_without(make_engine, ScriptedModel([PERSON_TEXT])):
        output = submit(engine, PERSON, SamplingParams(max_tokens=200, stop=('"age"',))).result()
        assert (output.text, output.finish_reason) == ('{"name": "Ada", ', "stop")


@pytest.mark.parametrize("max_tokens", [47, 48, 50, 60, 77, 78, 79, 200])
def test_every_budget_from_the_shortest_text_on_gives_a_whole_text(make_engine: MakeEngine, max_tokens: int) -> None:
    engine = make_engine(ScriptedModel([PERSON_TEXT]))
    minimum = Closing(PERSON, engine._spelling).minimum
    budget = minimum + max_tokens - 47
    output = submit(engine, PERSON, SamplingParams(max_tokens=budget)).result()
    json.loads(output.text)
    assert output.forced_close == (budget < len(PERSON_TEXT)) == (output.finish_reason == "length")
    assert len(output.token_ids) <= budget


def test_the_room_of_the_context_is_a_budget_too(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel([PERSON_TEXT]), max_model_len=70)
    output = submit(engine, PERSON, SamplingParams(max_tokens=1000), "12345").result()
    json.loads(output.text)
    assert output.forced_close and len(output.token_ids) <= 65


def fork_of(engine: Engine, parent: Handle, grammar: ContextFreeGrammar, params: SamplingParams) -> Handle:
    """Fork the request of a handle that `submit` gave."""
    [parent_id] = [request_id for request_id in engine._worker.core._answers.open if request_id >= 10**6]
    handle = Handle(cancel=lambda: None)
    request = make_request(engine, grammar, params, "x", handle)

    def start(core: EngineCore) -> None:
        for emission in core.fork(request, parent_id):
            handle.deliver(emission.delta)

    engine._worker.call(start)
    return handle


@pytest.mark.parametrize("max_tokens", [63, 70, 200])
def test_a_fork_of_what_was_forced_goes_on_from_there_or_is_closed(make_engine: MakeEngine, max_tokens: int) -> None:
    engine = make_engine(RandomLogitsModel(scale=2.0))
    parent = submit(engine, PEOPLE, replace(FREE, max_tokens=2000))
    seen = ""
    for delta in parent:
        seen += delta.text
        if len(seen) > 60:
            break
    fork = fork_of(engine, parent, PEOPLE, replace(FREE, max_tokens=max_tokens, seed=77))
    parent.cancel()
    output = fork.result(timeout=60)
    json.loads(output.text)
    assert len(output.token_ids) <= max_tokens and output.forced_close
    common = min(len(output.text), len(seen), 10)
    assert output.text[:common] == seen[:common]
    engine.generate([[*engine.tokenizer.encode("x"), *output.token_ids, 1]], SamplingParams(max_tokens=2))


def test_a_text_that_cannot_be_completed_any_more_is_an_error_and_not_half_a_text(make_engine: MakeEngine) -> None:
    """The engine's own check refuses such a request; this one went around it."""
    engine = make_engine(RandomLogitsModel())
    with pytest.raises(GenerationError, match="63 tokens are needed to complete the text, and 50 are left"):
        submit(engine, PEOPLE, replace(FREE, max_tokens=50)).result()
