"""The engine through its public face: twins, rows independent of their neighbours, ends of every kind, bad input."""

import asyncio
import gc
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_agent_llm import (
    CapacityError,
    ContextLengthError,
    Delta,
    Engine,
    EngineClosedError,
    EngineConfig,
    JSONSchema,
    MLXAgentError,
    RequestError,
    RequestOutput,
    RequestTimeout,
    SamplingParams,
    ToolChoiceError,
    UnsupportedSchemaError,
)
from mlx_agent_llm.testing import ByteTokenizer, RandomLogitsModel, ScriptedModel, tiny_model
from tests.support.search import examples
from tests.support.waiting import is_idle, wait_until

MakeEngine = Callable[..., Engine]

RANDOM = SamplingParams(max_tokens=20, temperature=1.5, seed=11, ignore_eos=True)
ENDLESS = SamplingParams(max_tokens=4000, ignore_eos=True)
CONFIG = EngineConfig(kv_cache_tokens=4096)


def fold(deltas: list[Delta]) -> tuple[str, tuple[int, ...], str | None]:
    return (
        "".join(delta.text for delta in deltas),
        tuple(token for delta in deltas for token in delta.token_ids),
        deltas[-1].finish_reason,
    )


def contents(output: RequestOutput) -> tuple[str, tuple[int, ...], str | None]:
    return output.text, output.token_ids, output.finish_reason


# --- twins -----------------------------------------------------------------------------------------------------------


async def test_every_way_to_ask_gives_the_same(make_engine: MakeEngine) -> None:
    engine = make_engine()
    [output] = engine.generate(["Hello"], RANDOM)
    expected = contents(output)
    assert len(expected[1]) == 20
    assert fold(list(engine.stream("Hello", RANDOM))) == expected
    assert contents(engine.submit("Hello", RANDOM).result()) == expected
    assert fold(list(engine.submit("Hello", RANDOM))) == expected
    assert contents((await engine.agenerate(["Hello"], RANDOM))[0]) == expected
    assert fold([delta async for delta in engine.astream("Hello", RANDOM)]) == expected
    assert contents(await engine.submit("Hello", RANDOM).aresult()) == expected
    assert fold([delta async for delta in engine.submit("Hello", RANDOM)]) == expected


async def test_every_way_to_chat_gives_the_same(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["Good morning."]))
    messages = [{"role": "user", "content": "Hello"}]
    assert engine.chat(messages).text == "Good morning."
    assert (await engine.achat(messages)).text == "Good morning."
    assert "".join(delta.text for delta in engine.stream_chat(messages)) == "Good morning."
    assert "".join([delta.text async for delta in engine.astream_chat(messages)]) == "Good morning."
    assert engine.generate([messages])[0].text == "Good morning."


def test_a_prompt_may_be_text_token_ids_or_messages(make_engine: MakeEngine) -> None:
    engine = make_engine()
    messages = [{"role": "user", "content": "Hi"}]
    rendered = engine.tokenizer.apply_chat_template(messages)
    outputs = engine.generate([messages, rendered, engine.tokenizer.encode(rendered)], RANDOM)
    assert len({output.token_ids for output in outputs}) == 1


def test_outputs_come_in_the_order_of_the_prompts_with_params_for_each(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(str.upper))
    params = [SamplingParams(max_tokens=length) for length in (3, 1, 2)]
    assert [output.text for output in engine.generate(["abc", "def", "ghi"], params)] == ["ABC", "D", "GH"]
    assert engine.generate([]) == []


def test_usage_and_timings_add_up(make_engine: MakeEngine) -> None:
    engine = make_engine()
    prompt = "x" * 40
    first = engine.generate([prompt], RANDOM)[0]
    again = engine.generate([prompt], RANDOM)[0]
    assert (first.usage.prompt_tokens, first.usage.cached_tokens, first.usage.completion_tokens) == (40, 0, 20)
    assert first.usage.total_tokens == 60
    assert again.usage.cached_tokens == 32
    assert 0 <= first.timings.queue <= first.timings.ttft <= first.timings.total


# --- a row's tokens are its own --------------------------------------------------------------------------------------

ROW_PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(8, 16),
    min_tokens=st.sampled_from([0, 0, 8]),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 3, 40]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.8, 1.4]),
    presence_penalty=st.sampled_from([0.0, 0.0, -0.5, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, -0.2, 1.0]),
    logit_bias=st.sampled_from([{}, {}, {ord("a"): 3.0, 257: 3.0}]),
    logprobs=st.sampled_from([None, None, 0, 3]),
    seed=st.integers(0, 5),
    priority=st.sampled_from([0, 0, 1]),
    ignore_eos=st.sampled_from([True, True, False]),
    stop_token_ids=st.sampled_from([(), tuple(range(0, 256, 5))]),
)


@settings(max_examples=examples(6))
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "shared " * 8 + "a", "shared " * 8 + "b"]), ROW_PARAMS),
        min_size=32,
        max_size=32,
    )
)
def test_a_rows_tokens_depend_on_its_prompt_parameters_and_seed_alone(rows: list[tuple[str, SamplingParams]]) -> None:
    prompts, params = [row[0] for row in rows], [row[1] for row in rows]
    model = tiny_model()
    with Engine.from_parts(model, ByteTokenizer(), EngineConfig(max_num_seqs=1, prefix_cache=False)) as engine:
        alone = [output.token_ids for output in engine.generate(prompts, params)]
        assert engine.stats().max_batch_size == 1
    with Engine.from_parts(model, ByteTokenizer(), EngineConfig(max_num_seqs=32)) as engine:
        assert [output.token_ids for output in engine.generate(prompts, params)] == alone
        assert engine.stats().max_batch_size > 8
        assert [output.token_ids for output in engine.generate(prompts[::-1], params[::-1])] == alone[::-1]
    crowded = EngineConfig(max_num_seqs=32, kv_cache_tokens=160, max_tokens_per_step=40)
    with Engine.from_parts(model, ByteTokenizer(), crowded) as engine:
        assert [output.token_ids for output in engine.generate(prompts, params)] == alone


@pytest.mark.parametrize("fields", [{}, {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 1.0}])
def test_a_preempted_row_draws_the_same_tokens(make_engine: MakeEngine, fields: dict[str, Any]) -> None:
    prompts = [f"{number} is a number and so is the next one" for number in range(28)]  # ten times what the pool holds
    params = replace(RANDOM, max_tokens=60, top_k=50, **fields)
    free = make_engine().generate(prompts, params)
    crowded = make_engine(kv_cache_tokens=256)
    assert [o.token_ids for o in crowded.generate(prompts, params)] == [o.token_ids for o in free]
    assert crowded.stats().num_preemptions > 0


def test_n_samples_are_separate_requests_with_the_following_seeds(make_engine: MakeEngine) -> None:
    engine = make_engine()
    together = engine.generate(["one prompt", "another"], replace(RANDOM, n=4, seed=100))
    apart = [
        engine.generate([prompt], replace(RANDOM, seed=100 + sample))[0]
        for prompt in ("one prompt", "another")
        for sample in range(4)
    ]
    assert [output.token_ids for output in together] == [output.token_ids for output in apart]
    assert len({output.token_ids for output in together}) == 8


def test_requests_without_a_seed_differ_and_follow_from_the_engines_seed(make_engine: MakeEngine) -> None:
    params = replace(RANDOM, seed=None)

    def run(seed: int) -> list[tuple[int, ...]]:
        return [output.token_ids for output in make_engine(seed=seed).generate(["x"] * 3, params)]

    assert run(1) == run(1) != run(2)
    assert len(set(run(1))) == 3


# --- shared prefixes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens_per_step", [50, 512])
def test_sixteen_requests_that_arrive_together_compute_their_shared_prefix_once(
    make_engine: MakeEngine, max_tokens_per_step: int
) -> None:
    engine = make_engine(max_tokens_per_step=max_tokens_per_step, max_num_seqs=16)
    engine.generate(["shared " * 40 + f"{number:02} is my own number" for number in range(16)], RANDOM)
    stats = engine.stats()
    shared, own = 280 // 16 * 16, 280 % 16 + len("00 is my own number")
    assert stats.num_prompt_tokens_computed == shared + 16 * own
    assert stats.prefix_hit_tokens == 15 * shared
    assert stats.peak_shared_blocks >= shared // 16


def test_a_request_that_comes_later_finds_the_prompt_and_the_answer_of_an_earlier_one(make_engine: MakeEngine) -> None:
    engine = make_engine()
    [first] = engine.generate([[1] * 30], SamplingParams(max_tokens=40, ignore_eos=True))
    [second] = engine.generate([[1] * 30 + list(first.token_ids) + [5]], RANDOM)
    assert second.usage.cached_tokens == 64


def test_without_the_prefix_cache_nothing_is_found(make_engine: MakeEngine) -> None:
    engine = make_engine(prefix_cache=False)
    outputs = engine.generate(["x" * 50] * 4, RANDOM)
    assert [output.usage.cached_tokens for output in outputs] == [0] * 4
    assert engine.stats().num_prompt_tokens_computed == 200


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_stop_string_is_never_shown_however_the_tokens_split_it(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["one two STOP three"]))
    deltas = list(engine.stream("x", SamplingParams(stop=("STOP",))))
    assert fold(deltas)[0] == "one two "
    assert deltas[-1].finish_reason == "stop"
    shown = ""
    for delta in deltas:
        shown += delta.text
        assert "one two ".startswith(shown)


def test_a_single_stop_string_need_not_be_in_a_tuple() -> None:
    fields: dict[str, Any] = {"stop": "END", "stop_token_ids": [3]}
    params = SamplingParams(**fields)
    assert (params.stop, params.stop_token_ids) == (("END",), (3,))


def test_no_end_token_comes_before_min_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["ab"]))
    [output] = engine.generate(["x"], SamplingParams(min_tokens=5, max_tokens=9))
    assert (output.token_ids, output.finish_reason) == ((ord("a"), ord("b"), 0, 0, 0, 257), "stop")
    [output] = engine.generate(["x"], SamplingParams(min_tokens=1, stop_token_ids=[ord("a"), ord("b")]))
    assert (output.token_ids, output.finish_reason) == ((0, ord("b")), "stop")
    [output] = engine.generate(["x"], SamplingParams(min_tokens=5, max_tokens=5))
    assert (len(output.token_ids), output.finish_reason) == (5, "length")


def test_a_stop_string_ends_an_output_also_before_min_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["one two STOP three"]))
    [output] = engine.generate(["x"], SamplingParams(stop="STOP", min_tokens=50))
    assert (output.text, output.finish_reason) == ("one two ", "stop")


def test_penalties_and_biases_count_the_tokens_of_their_own_request(make_engine: MakeEngine) -> None:
    """The model gives the scripted token 100 and all others 0; a bias that outweighs it leaves it to the penalties."""
    engine = make_engine(ScriptedModel(["a" * 6]))
    bias = {ord("a"): -100.0, ord("b"): 1.0}
    params = SamplingParams(max_tokens=6, logit_bias=bias)
    presence, frequency = replace(params, presence_penalty=0.9), replace(params, frequency_penalty=0.4)
    outputs = engine.generate(["b" * 20] * 3, [params, replace(presence, logit_bias=bias | {ord("c"): 0.5}), frequency])
    assert [output.text for output in outputs] == ["bbbbbb", "bcbbbb", "bbb\0\1\2"]


def test_an_output_ends_at_the_end_of_the_context(make_engine: MakeEngine) -> None:
    engine = make_engine(max_model_len=32)
    [output] = engine.generate([[1] * 20], ENDLESS)
    assert (len(output.token_ids), output.finish_reason) == (12, "length")


def test_characters_of_several_tokens_are_shown_whole(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(["añ€😀"]))
    texts = [delta.text for delta in engine.stream("x")]
    assert [text for text in texts if text] == ["a", "ñ", "€", "😀"]


# --- ends before the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_taken", [0, 1, 3])
def test_closing_a_stream_early_frees_its_blocks(make_engine: MakeEngine, num_taken: int) -> None:
    engine = make_engine()
    stream = engine.stream("x" * 40, ENDLESS)
    for _ in range(num_taken):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: is_idle(engine))
    assert list(stream) == []


def test_dropping_a_stream_cancels_its_request(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for _ in engine.stream("x", ENDLESS):
        break
    gc.collect()
    wait_until(lambda: is_idle(engine))


def test_closing_a_chat_stream_before_its_first_delta_cancels_its_request(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.stream_chat([{"role": "user", "content": "x"}], params=ENDLESS).close()  # type: ignore[attr-defined]
    wait_until(lambda: is_idle(engine))


async def test_closing_an_async_stream_early_frees_its_blocks(make_engine: MakeEngine) -> None:
    engine = make_engine()
    stream = engine.astream("x", ENDLESS)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    wait_until(lambda: is_idle(engine))


async def test_cancelling_a_task_cancels_its_requests(make_engine: MakeEngine) -> None:
    engine = make_engine()
    task = asyncio.create_task(engine.agenerate(["x", "y"], ENDLESS))
    while engine.stats().num_running < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_until(lambda: is_idle(engine))


async def test_a_task_that_is_cancelled_while_it_submits_leaves_nothing_after(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for delay in range(5):
        task = asyncio.create_task(engine.agenerate(["x"], ENDLESS))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    while not is_idle(engine):
        await asyncio.sleep(0.001)


def test_a_cancelled_request_gives_what_it_has_and_frees_its_blocks(make_engine: MakeEngine) -> None:
    engine = make_engine()
    handle = engine.submit("x", ENDLESS)
    deltas = iter(handle)
    for _ in range(3):
        next(deltas)
    handle.cancel()
    output = handle.result()
    assert output.finish_reason == "cancelled"
    assert 3 <= len(output.token_ids) < 4000
    assert is_idle(engine)
    handle.cancel()
    assert handle.result() == output


def test_a_request_that_still_waits_can_be_cancelled(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1)
    running, waiting = engine.submit("x", ENDLESS), engine.submit("y", ENDLESS)
    next(iter(running))
    waiting.cancel()
    assert (waiting.result().finish_reason, waiting.result().token_ids) == ("cancelled", ())
    running.cancel()
    wait_until(lambda: is_idle(engine))


def test_a_request_that_takes_too_long_fails_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()
    late = engine.submit("x", replace(ENDLESS, timeout=0.05))
    other = engine.submit("y", replace(RANDOM, timeout=60.0))
    with pytest.raises(RequestTimeout, match=r"request \d+ did not finish within timeout=0.05 s"):
        late.result()
    assert len(other.result().token_ids) == 20
    wait_until(lambda: is_idle(engine))
    with pytest.raises(RequestTimeout):
        late.result()


def test_waiting_for_a_result_may_time_out_and_the_request_goes_on(make_engine: MakeEngine) -> None:
    engine = make_engine()
    handle = engine.submit("x", ENDLESS)
    with pytest.raises(RequestTimeout, match=r"timeout=0.1 s"):
        handle.result(timeout=0.1)  # in all, not from delta to delta
    assert engine.stats().num_running == 1
    handle.cancel()
    assert handle.result().finish_reason == "cancelled"


async def test_a_handle_that_was_left_in_the_middle_can_be_gone_on_with(make_engine: MakeEngine) -> None:
    handle = make_engine().submit("x", replace(ENDLESS, max_tokens=200))
    tokens: list[int] = []
    for _ in range(3):
        async for delta in handle:
            tokens += delta.token_ids
            break
    async with asyncio.timeout(20):
        tokens += [token async for delta in handle for token in delta.token_ids]
        assert (await handle.aresult()).token_ids == tuple(tokens)
    assert len(tokens) == 200


def test_closing_the_engine_fails_every_open_request_and_ends_its_thread(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=2)
    handles = [engine.submit("x", ENDLESS) for _ in range(5)]
    next(iter(handles[0]))
    engine.close()
    for handle in handles:
        with pytest.raises(EngineClosedError, match="the engine is closed"):
            handle.result(timeout=5)
    with pytest.raises(EngineClosedError):
        engine.submit("x")
    with pytest.raises(EngineClosedError):
        engine.generate(["x"])
    engine.close()
    assert not engine._worker._thread.is_alive()
    assert is_idle(engine)


def test_every_request_ends_exactly_once_when_the_engine_closes_among_many_threads(make_engine: MakeEngine) -> None:
    engine = make_engine()
    ends: list[str] = []

    def ask() -> None:
        while True:
            try:
                ends.append(engine.submit("x", RANDOM).result(timeout=20).finish_reason)
            except EngineClosedError:
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(ends) > 20)
    engine.close()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert set(ends) == {"length"}


def test_leaving_a_with_block_closes_the_engine() -> None:
    with Engine.from_parts(tiny_model(), ByteTokenizer(), CONFIG) as engine:
        handle = engine.submit("x", ENDLESS)
    with pytest.raises(EngineClosedError):
        handle.result(timeout=5)


# --- many callers ----------------------------------------------------------------------------------------------------


def test_many_threads_and_event_loops_share_one_engine(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(str.upper))

    def ask(number: int) -> bool:
        return engine.generate([f"thread {number}"])[0].text == f"THREAD {number}"

    def ask_in_a_loop_of_its_own(number: int) -> bool:
        async def main() -> list[str]:
            outputs = await asyncio.gather(*(engine.agenerate([f"loop {number}.{i}"]) for i in range(4)))
            return [output.text for [output] in outputs]

        return asyncio.run(main()) == [f"LOOP {number}.{i}" for i in range(4)]

    with ThreadPoolExecutor(16) as pool:
        results = [*pool.map(ask, range(24)), *pool.map(ask_in_a_loop_of_its_own, range(6))]
    assert all(results)
    assert engine.stats().max_batch_size > 1


def test_a_closed_event_loop_harms_nobody(make_engine: MakeEngine) -> None:
    engine = make_engine()

    async def leave() -> None:
        async for _ in engine.submit("x", replace(ENDLESS, max_tokens=300)):
            return

    asyncio.run(leave())
    assert len(engine.generate(["y"], RANDOM)[0].token_ids) == 20
    wait_until(lambda: is_idle(engine))


def test_long_prompts_do_not_hold_up_a_running_stream(make_engine: MakeEngine) -> None:
    engine = make_engine(max_tokens_per_step=24, max_num_seqs=4)
    stream = engine.submit("x", replace(ENDLESS, max_tokens=50))
    next(iter(stream))
    late = engine.submit([1] * 3900, replace(ENDLESS, max_tokens=1))
    assert len(stream.result().token_ids) == 50
    assert engine.stats().num_running == 1, "the stream should have ended long before the prompt was computed"
    assert len(late.result().token_ids) == 1


# --- bad input -------------------------------------------------------------------------------------------------------

BAD_PARAMS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
    ({"max_tokens": 1.5}, r"max_tokens=1.5 must be an integer"),
    ({"max_tokens": True}, "max_tokens=True must be an integer"),
    ({"temperature": -0.1}, r"temperature=-0.1 must be between 0 and 10000"),
    ({"temperature": math.nan}, r"temperature=nan must be between 0 and 10000"),
    ({"temperature": math.inf}, r"temperature=inf must be between 0 and 10000"),
    ({"temperature": "hot"}, "temperature='hot' must be a number"),
    ({"top_p": 0}, "top_p=0 must be between 1e-09 and 1"),
    ({"top_p": math.nan}, "top_p=nan must be between"),
    ({"top_k": -1}, "top_k=-1 must be at least 0"),
    ({"min_p": 1.1}, r"min_p=1.1 must be between 0 and 1"),
    ({"min_tokens": -1}, "min_tokens=-1 must be between 0 and 512"),
    ({"min_tokens": 4, "max_tokens": 3}, "min_tokens=4 must be between 0 and 3"),
    ({"min_tokens": 1, "constraint": JSONSchema({"type": "object"})}, "min_tokens=1 must be 0 with a constraint"),
    ({"repetition_penalty": 0}, r"repetition_penalty=0 must be between 0.0001 and 10000"),
    ({"repetition_penalty": math.inf}, "repetition_penalty=inf must be between"),
    ({"presence_penalty": 2.1}, r"presence_penalty=2.1 must be between -2 and 2"),
    ({"frequency_penalty": math.nan}, "frequency_penalty=nan must be between -2 and 2"),
    ({"logit_bias": [(1, 1.0)]}, r"logit_bias=\[\(1, 1.0\)\] must be a mapping of token ids to numbers"),
    ({"logit_bias": {"1": 1.0}}, "logit_bias token id='1' must be an integer"),
    ({"logit_bias": {-1: 1.0}}, "logit_bias token id=-1 must be at least 0"),
    ({"logit_bias": {1: -101}}, r"logit_bias\[1\]=-101 must be between -100 and 100"),
    ({"logit_bias": {1: math.nan}}, r"logit_bias\[1\]=nan must be between -100 and 100"),
    ({"logprobs": 21}, "logprobs=21 must be between 0 and 20"),
    ({"logprobs": True}, "logprobs=True must be an integer"),
    ({"n": 0}, "n=0 must be at least 1"),
    ({"seed": -1}, "seed=-1 must be between 0 and 4294967295"),
    ({"seed": 2**32 - 1, "n": 2}, "seed=4294967295 must be between 0 and 4294967294"),
    ({"timeout": -1}, "timeout=-1 must be between 0 and"),
    ({"timeout": math.nan}, "timeout=nan must be between 0 and"),
    ({"stop": ""}, "must hold non-empty strings"),
    ({"stop": ("a", "")}, "must hold non-empty strings"),
    ({"stop": [5]}, "must hold non-empty strings"),
    ({"stop_token_ids": [-1]}, "stop_token_ids=-1 must be at least 0"),
    ({"constraint": {"type": "object"}}, "constraint={'type': 'object'} must be a JSONSchema"),
    ({"constraint": JSONSchema({"type": "object"}), "ignore_eos": True}, "ignore_eos=True contradicts a constraint"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_PARAMS, ids=str)
def test_bad_parameters_are_refused_with_field_value_and_bound(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields)


BAD_PROMPTS: list[tuple[Any, type[MLXAgentError], str]] = [
    ("", RequestError, "prompt='' must hold at least one token"),
    ([], RequestError, r"prompt=\[\] must hold at least one token"),
    ([1, 258], RequestError, r"prompt\[1\]=258 must be between 0 and 257"),
    ([-1], RequestError, r"prompt\[0\]=-1 must be between 0 and 257"),
    ([1.0], RequestError, r"prompt\[0\]=1.0 must be a token id"),
    ([True], RequestError, r"prompt\[0\]=True must be a token id"),
    (None, RequestError, "prompt=None must be text, token ids or messages"),
    (5, RequestError, "prompt=5 must be text, token ids or messages"),
    (b"bytes", RequestError, "prompt=b'bytes' must be text, token ids or messages"),
    ("\ud800", RequestError, "must be text that UTF-8 can encode"),
    ([{"role": "wizard", "content": "x"}], RequestError, r"messages\[0\].role='wizard' must be one of"),
    ([{"role": "user", "content": 5}], RequestError, r"messages\[0\].content=5 must be"),
    ("x" * 4096, ContextLengthError, "prompt of 4096 tokens leaves no room for a new one: max_model_len=4096"),
    ("x" * 900, CapacityError, "needs room for 1412 tokens, but the KV pool holds 1024"),
]


@pytest.mark.parametrize(("prompt", "kind", "message"), BAD_PROMPTS, ids=lambda value: str(value)[:30])
def test_a_bad_prompt_fails_alone_at_once_and_nothing_of_it_is_computed(
    make_engine: MakeEngine, prompt: Any, kind: type[MLXAgentError], message: str
) -> None:
    engine = make_engine(kv_cache_tokens=1024)
    other = engine.submit("y", replace(RANDOM, max_tokens=100))
    for ask in (engine.submit, engine.stream, lambda bad: engine.generate(["fine", bad])):
        with pytest.raises(kind, match=message):
            ask(prompt)
    assert len(other.result().token_ids) == 100
    wait_until(lambda: is_idle(engine))
    assert engine.stats().prefix_query_tokens == 1, "something of the refused calls was computed"


BAD_CALLS: list[tuple[Callable[[Any], Any], type[MLXAgentError], str]] = [
    (lambda e: e.generate("x"), RequestError, "prompts must be a list of prompts, not str"),
    (lambda e: e.generate(None), RequestError, "prompts must be a list of prompts, not NoneType"),
    (lambda e: e.generate({"a": 1}), RequestError, "prompts must be a list of prompts, not dict"),
    (lambda e: e.generate(["x"], [RANDOM] * 2), RequestError, "params holds 2 items for 1 prompts"),
    (lambda e: e.generate(["x"], {"n": 1}), RequestError, "params={'n': 1} must be SamplingParams"),
    (lambda e: e.submit("x", 5), RequestError, "params=5 must be SamplingParams"),
    (lambda e: e.submit("x", SamplingParams(n=2)), RequestError, "n=2 must be 1 for a single request"),
    (
        lambda e: e.generate(["x", "x"], [RANDOM, SamplingParams(constraint=JSONSchema({"uniqueItems": True}))]),
        UnsupportedSchemaError,
        "'uniqueItems' cannot be enforced exactly",
    ),
    (
        lambda e: e.submit("x", SamplingParams(stop_token_ids=(258,))),
        RequestError,
        "stop_token_ids=258 must be below the vocabulary's size, 258",
    ),
    (
        lambda e: e.submit("x", SamplingParams(logit_bias={5: 1.0, 258: 1.0})),
        RequestError,
        "logit_bias token id=258 must be below the vocabulary's size, 258",
    ),
    (
        lambda e: e.submit("x", SamplingParams(min_tokens=1, stop_token_ids=range(257))),
        RequestError,
        "min_tokens=1 must be 0 where every token of the vocabulary is an end token",
    ),
    (
        lambda e: e.submit([1] * 10, SamplingParams(max_tokens=4087, min_tokens=4087)),
        ContextLengthError,
        r"prompt of 10 tokens \+ min_tokens=4087 must be at most max_model_len=4096",
    ),
    (lambda e: e.chat([]), RequestError, r"messages=\[\] must be a non-empty list"),
    (lambda e: e.chat([{"role": "elf", "content": ""}]), RequestError, r"messages\[0\].role='elf' must be one of"),
    (
        lambda e: e.chat([{"role": "user", "content": "x"}], tools=[{"name": "f", "parameters": {"type": "string"}}]),
        ToolChoiceError,
        "must be a JSON Schema of type 'object'",
    ),
    (
        lambda e: e.chat([{"role": "user", "content": "x"}], tools=[{"name": "f"}], tool_choice="g"),
        ToolChoiceError,
        "tool_choice='g' must be .* known tools: 'f'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD_CALLS, ids=[message[:30] for _, _, message in BAD_CALLS])
def test_a_bad_call_is_refused_before_anything_is_computed(
    make_engine: MakeEngine, call: Callable[[Engine], Any], kind: type[MLXAgentError], message: str
) -> None:
    engine = make_engine()
    other = engine.submit("y", replace(RANDOM, max_tokens=100))
    with pytest.raises(kind, match=message):
        call(engine)
    assert len(other.result().token_ids) == 100
    wait_until(lambda: is_idle(engine))
    assert engine.stats().prefix_query_tokens == 1


async def test_async_calls_refuse_the_same(make_engine: MakeEngine) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match="at least one token"):
        await engine.agenerate([""])
    with pytest.raises(RequestError, match="at least one token"):
        await anext(engine.astream(""))
    with pytest.raises(RequestError, match="non-empty list"):
        await engine.achat([])


def test_more_requests_than_the_queue_holds_are_refused_and_the_others_finish(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1, max_queue=2)
    first = engine.submit("x", ENDLESS)
    next(iter(first))
    waiting = [engine.submit("y", RANDOM) for _ in range(2)]
    with pytest.raises(CapacityError, match="max_queue=2 requests are waiting already"):
        engine.submit("z", RANDOM)
    with pytest.raises(CapacityError):
        engine.generate(["z"], RANDOM)
    first.cancel()
    assert [len(handle.result().token_ids) for handle in waiting] == [20, 20]
    assert len(engine.submit("z", RANDOM).result().token_ids) == 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs=0 must be at least 1"),
        ({"max_tokens_per_step": 8, "max_num_seqs": 9}, "max_tokens_per_step=8 must be at least max_num_seqs=9"),
        ({"block_size": 257}, "block_size=257 must be between 1 and 256"),
        ({"kv_cache_tokens": 0}, "kv_cache_tokens=0 must be at least 1"),
        ({"kv_cache_tokens": 1, "kv_cache_bytes": 1}, "kv_cache_tokens and kv_cache_bytes"),
        ({"seed": -1}, "seed=-1 must be between 0 and 4294967295"),
        ({"device": "tpu"}, "device='tpu' must be 'auto', 'cpu' or 'gpu'"),
        ({"dtype": "int8"}, "dtype='int8' must be"),
    ],
)
def test_a_bad_config_is_refused_with_field_value_and_bound(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**fields)


def test_a_config_that_does_not_fit_the_model_is_refused_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="max_model_len=5000 must be at most the model's context, 4096"):
        Engine.from_parts(tiny_model(), ByteTokenizer(), EngineConfig(max_model_len=5000))
    with pytest.raises(CapacityError, match="a KV pool of 10 bytes holds no block"):
        Engine.from_parts(tiny_model(), ByteTokenizer(), EngineConfig(kv_cache_bytes=10))
    wait_until(lambda: threading.active_count() == before)


def test_constrained_and_free_rows_run_side_by_side(make_engine: MakeEngine) -> None:
    engine = make_engine(RandomLogitsModel())
    schema = JSONSchema({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]})
    params = [SamplingParams(constraint=schema, temperature=1.0, seed=i) if i % 2 else RANDOM for i in range(8)]
    outputs = engine.generate(["x"] * 8, params)
    assert {output.text for output in outputs[1::2]} <= {'{"a": true}', '{"a": false}'}
    assert all(output.token_ids == outputs[0].token_ids for output in outputs[::2])
