"""Log-probabilities: of the model's own distribution, parallel to the tokens, and no business of the neighbours'."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import Delta, Engine, JSONSchema, RequestOutput, SamplingParams, TokenLogprob
from mlx_agent_llm.core.output.logprobs import compute_logprobs, read_logprobs
from mlx_agent_llm.request import Request
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel, tiny_model
from tests.support.search import examples

MakeEngine = Callable[..., Engine]

PROMPT = list(b"The quick brown fox")
RANDOM = SamplingParams(max_tokens=20, temperature=1.5, seed=11, ignore_eos=True, logprobs=3)
YES_OR_NO = JSONSchema({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]})


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """The tiny model as mlx-lm has it: no engine was ever made of this one."""
    return tiny_model("llama")


def model_logprobs(model: nn.Module, prompt: Sequence[int], output: Sequence[int]) -> npt.NDArray[np.float32]:
    """(len(output), V) of one plain forward over the whole sequence."""
    logits = model(mx.array([[*prompt, *output]]))[0, len(prompt) - 1 : -1].astype(mx.float32)
    return np.array(nn.log_softmax(logits))


def assert_are_of(logprobs: Sequence[TokenLogprob], expected: npt.NDArray[np.float32], k: int) -> None:
    for one, row in zip(logprobs, expected, strict=True):
        best = np.argsort(-row)[:k]
        assert one.logprob == pytest.approx(row[one.token_id], abs=1e-3)
        assert [token_id for token_id, _ in one.top] == best.tolist()
        assert [logprob for _, logprob in one.top] == pytest.approx(row[best].tolist(), abs=1e-3)


@pytest.mark.parametrize(
    "params",
    [
        RANDOM,
        replace(RANDOM, logprobs=0),
        replace(RANDOM, logprobs=20, temperature=0.0),
        replace(RANDOM, top_k=5, top_p=0.5, min_p=0.1),
        replace(RANDOM, repetition_penalty=1.5, presence_penalty=1.0, frequency_penalty=-1.0, logit_bias={97: 20.0}),
        replace(RANDOM, ignore_eos=False, min_tokens=20, stop_token_ids=range(0, 256, 3)),
        replace(RANDOM, ignore_eos=False, constraint=YES_OR_NO),
    ],
    ids=str,
)
def test_logprobs_are_those_of_a_plain_forward_whatever_the_sampler_does(
    make_engine: MakeEngine, reference: nn.Module, params: SamplingParams
) -> None:
    [output] = make_engine().generate([PROMPT], params)
    assert output.logprobs is not None and params.logprobs is not None
    assert tuple(one.token_id for one in output.logprobs) == output.token_ids
    assert_are_of(output.logprobs, model_logprobs(reference, PROMPT, output.token_ids), params.logprobs)


def test_a_chat_has_the_logprobs_of_every_token_whole_and_streamed(make_engine: MakeEngine) -> None:
    model = ScriptedModel(['<tool_call>{"name": "now", "arguments": {}}</tool_call>'])
    engine, asked = make_engine(model), [{"role": "user", "content": "x"}]
    options = {"tools": [{"name": "now"}], "params": SamplingParams(logprobs=2)}
    output, deltas = engine.chat(asked, **options), list(engine.stream_chat(asked, **options))
    assert output.logprobs is not None and len(output.logprobs) == output.usage.completion_tokens
    assert bytes(one.token_id for one in output.logprobs[:11]) == b"<tool_call>"
    assert tuple(one for delta in deltas for one in delta.logprobs or ()) == output.logprobs
    assert engine.chat(asked).logprobs is None


def test_the_most_probable_token_has_one_logprob_as_the_sampled_one_and_as_the_best(make_engine: MakeEngine) -> None:
    [output] = make_engine().generate([PROMPT], replace(RANDOM, temperature=0.0))
    assert output.logprobs is not None
    for one in output.logprobs:
        assert one.top[0] == (one.token_id, one.logprob)
        assert one.logprob <= 0


def assert_same(first: RequestOutput, second: RequestOutput) -> None:
    assert first.token_ids == second.token_ids
    assert (first.logprobs is None) == (second.logprobs is None)
    for one, other in zip(first.logprobs or (), second.logprobs or (), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [token_id for token_id, _ in one.top] == [token_id for token_id, _ in other.top]


def test_logprobs_are_the_same_alone_in_a_batch_and_after_a_preemption(make_engine: MakeEngine) -> None:
    prompts = [f"{number} is a number and so is the next one" for number in range(8)]
    params = [
        replace(RANDOM, max_tokens=40, logprobs=(None, 0, 1, 20)[number % 4], presence_penalty=number % 3 / 2)
        for number in range(8)
    ]
    alone = make_engine(max_num_seqs=1, prefix_cache=False).generate(prompts, params)
    together = make_engine(model=tiny_model("llama")).generate(prompts, params)
    crowded_engine = make_engine(model=tiny_model("llama"), kv_cache_tokens=256)
    crowded = crowded_engine.generate(prompts, params)
    assert crowded_engine.stats().num_preemptions > 0
    for one, params_of_one, batched, preempted in zip(alone, params, together, crowded, strict=True):
        assert (one.logprobs is None) == (params_of_one.logprobs is None)
        assert {len(logprob.top) for logprob in one.logprobs or ()} == {params_of_one.logprobs} - {None}
        assert_same(one, batched)
        assert_same(one, preempted)


def test_streamed_logprobs_are_parallel_to_the_tokens_and_add_up_to_the_result(make_engine: MakeEngine) -> None:
    handle = make_engine().submit(PROMPT, RANDOM)
    deltas = list(handle)
    assert len(deltas) == 20
    for delta in deltas:
        assert delta.logprobs is not None
        assert tuple(one.token_id for one in delta.logprobs) == delta.token_ids
    output = handle.result()
    assert output.logprobs == tuple(one for delta in deltas for one in delta.logprobs or ())


def test_there_are_none_where_none_are_asked_for(make_engine: MakeEngine) -> None:
    handle = make_engine().submit(PROMPT, replace(RANDOM, logprobs=None))
    assert [delta.logprobs for delta in handle] == [None] * 20
    assert handle.result().logprobs is None


@pytest.mark.parametrize(
    "params", [SamplingParams(stop="STOP"), SamplingParams(stop_token_ids=[ord("T")]), SamplingParams(max_tokens=5)]
)
def test_the_token_that_ends_an_output_has_its_logprob_too(make_engine: MakeEngine, params: SamplingParams) -> None:
    [output] = make_engine(ScriptedModel(["one STOP two"])).generate(["x"], replace(params, logprobs=1))
    assert output.logprobs is not None
    assert [one.top[0][0] for one in output.logprobs] == list(output.token_ids)


def test_a_cancelled_request_has_the_logprobs_of_the_tokens_that_it_has(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1)
    running = engine.submit("x", replace(RANDOM, max_tokens=4000))
    waiting = engine.submit("y", RANDOM)
    next(iter(running))
    waiting.cancel()
    assert waiting.result().logprobs == ()
    running.cancel()
    output = running.result()
    assert output.logprobs is not None and output.finish_reason == "cancelled"
    assert tuple(one.token_id for one in output.logprobs) == output.token_ids


def test_a_constrained_token_may_be_less_probable_than_those_that_the_grammar_forbade(make_engine: MakeEngine) -> None:
    params = SamplingParams(constraint=YES_OR_NO, logprobs=1)
    [output] = make_engine(RandomLogitsModel()).generate(["x"], params)
    assert output.logprobs is not None
    assert any(one.top[0][0] != one.token_id and one.top[0][1] > one.logprob for one in output.logprobs)


# --- on arrays -------------------------------------------------------------------------------------------------------


def requests_for(counts: Sequence[int | None]) -> list[Request]:
    def sink(delta: Delta) -> None:
        pass

    return [Request(row, [1], SamplingParams(logprobs=count), 0, sink) for row, count in enumerate(counts)]


def logprobs_of(
    logits: npt.NDArray[np.float32], tokens: list[int], counts: Sequence[int | None]
) -> list[TokenLogprob | None]:
    rows = np.array([row for row, count in enumerate(counts) if count is not None], dtype=np.int32)
    arrays = compute_logprobs(mx.array(logits), mx.array(tokens), rows, with_top=any(counts))
    return read_logprobs(arrays, tokens, requests_for(counts))


@settings(max_examples=examples(100))
@given(
    st.lists(st.sampled_from([None, 0, 1, 7, 20]), min_size=1, max_size=6).filter(lambda counts: set(counts) != {None}),
    st.sampled_from([20, 21, 300]),
    st.integers(0, 1000),
)
def test_a_rows_logprobs_are_bit_for_bit_the_same_beside_any_others(
    counts: list[int | None], size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(counts), size)).astype(np.float32).round(1)  # with equal ones
    tokens = rng.integers(0, size, len(counts)).tolist()
    together = logprobs_of(logits, tokens, counts)
    for row, count in enumerate(counts):
        if count is None:
            assert together[row] is None
            continue
        assert [together[row]] == logprobs_of(logits[row : row + 1], tokens[row : row + 1], [count])
        exact = logits[row] - np.logaddexp.reduce(logits[row].astype(np.float64))
        one = together[row]
        assert one is not None and len(one.top) == count
        assert one.logprob == pytest.approx(exact[tokens[row]], abs=1e-5)
        assert [logprob for _, logprob in one.top] == pytest.approx(sorted(exact, reverse=True)[:count], abs=1e-5)
        assert all(exact[token_id] == pytest.approx(logprob, abs=1e-5) for token_id, logprob in one.top)


def test_of_equally_probable_tokens_the_lower_id_comes_first() -> None:
    logits = np.zeros((1, 20), dtype=np.float32)
    logits[0, 13] = 1
    [one] = logprobs_of(logits, [0], [4])
    assert one is not None
    assert [token_id for token_id, _ in one.top] == [13, 0, 1, 2]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_logprobs_of_half_precision_logits_are_computed_in_float32(dtype: mx.Dtype) -> None:
    logits = mx.array(np.random.default_rng(0).normal(size=(1, 500)).astype(np.float32)).astype(dtype)
    rows = np.array([0], dtype=np.int32)
    half = compute_logprobs(logits, mx.array([7]), rows, with_top=False).sampled.item()
    assert half == compute_logprobs(logits.astype(mx.float32), mx.array([7]), rows, with_top=False).sampled.item()
