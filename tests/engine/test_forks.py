"""Forks: a request that goes on from another one's tokens and KV, and n samples that share one prompt."""

import gc
import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import mlx.core as mx
import pytest

from mlx_agent_llm import (
    CapacityError,
    Engine,
    EngineClosedError,
    Handle,
    JSONSchema,
    RequestError,
    RequestOutput,
    SamplingParams,
)
from mlx_agent_llm.core.forward.layers.full import PagedLayer
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.testing import RandomLogitsModel, ScriptedModel

MakeEngine = Callable[..., Engine]

PROMPT = "a prompt of more than one block"
PARAMS = SamplingParams(max_tokens=60, temperature=1.2, seed=7, ignore_eos=True)
SCHEMA = JSONSchema(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


def fork_after(
    engine: Engine, num_tokens: int, params: SamplingParams | None, parent: SamplingParams = PARAMS
) -> tuple[Handle, Handle]:
    """A request and its fork, made by the engine's thread itself when the request has just so many tokens."""
    ready, forked = threading.Event(), list[Handle]()
    step = engine._worker.core.step

    def forking_step() -> Any:
        outputs = step()
        request = engine._worker.core._answers.open.get(0)
        if not forked and request is not None and len(request.token_ids) - request.num_prompt_tokens >= num_tokens:
            forked.append(handle.fork(params))
            ready.set()
        return outputs

    engine._worker.core.step = forking_step  # type: ignore[method-assign]
    handle = engine.submit(PROMPT, parent)
    assert ready.wait(20)
    return handle, forked[0]


def contents(output: RequestOutput) -> tuple[str, tuple[int, ...], str]:
    return output.text, output.token_ids, output.finish_reason


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 16, 17, 33, 59])
def test_a_fork_with_the_seed_of_its_parent_writes_what_its_parent_writes(
    make_engine: MakeEngine, num_tokens: int, prefix_cache: bool
) -> None:
    engine = make_engine(prefix_cache=prefix_cache)
    parent, child = fork_after(engine, num_tokens, PARAMS)
    expected = contents(parent.result(20))
    assert contents(child.result(20)) == expected
    assert len(expected[1]) == 60


def test_a_fork_without_parameters_keeps_the_output_so_far_and_goes_its_own_way(make_engine: MakeEngine) -> None:
    parent, child = fork_after(make_engine(), 20, None)
    whole, own = parent.result(20).token_ids, child.result(20).token_ids
    assert own[:20] == whole[:20] and own != whole
    assert len(own) == 60


def test_the_first_delta_of_a_fork_is_the_output_so_far(make_engine: MakeEngine) -> None:
    parent, child = fork_after(make_engine(), 20, PARAMS)
    whole = parent.result(20)
    first, *rest = child
    assert first.token_ids == whole.token_ids[:20]
    assert all(len(delta.token_ids) == 1 for delta in rest)
    assert first.text + "".join(delta.text for delta in rest) == whole.text


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_a_fork_computes_one_token_and_counts_its_prompt_as_cached(make_engine: MakeEngine, prefix_cache: bool) -> None:
    engine = make_engine(prefix_cache=prefix_cache)
    parent, child = fork_after(engine, 20, PARAMS)
    assert child.result(20).usage.cached_tokens == len(PROMPT) == child.result().usage.prompt_tokens
    assert child.result().usage.completion_tokens == 60
    parent.result(20)
    assert engine.stats().num_prompt_tokens_computed == len(PROMPT)
    assert engine.stats().num_generated_tokens == 60 + 40
    assert engine.stats().prefix_hit_tokens == engine.stats().prefix_miss_tokens == len(PROMPT)


def test_forks_of_forks_read_the_kv_of_all_that_went_before(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "".join(chr(97 + i % 26) for i in range(300))))
    handle = engine.submit("x" * 21, SamplingParams(max_tokens=250))
    family = [handle]
    for _ in range(8):
        deltas = iter(family[-1])
        list(islice(deltas, 5))
        family.append(family[-1].fork())
    texts = {member.result(20).text for member in family}
    assert texts == {"".join(chr(97 + i % 26) for i in range(250))}


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_n_samples_compute_their_prompt_once_and_are_what_they_are_alone(
    make_engine: MakeEngine, prefix_cache: bool
) -> None:
    engine = make_engine(prefix_cache=prefix_cache, max_tokens_per_step=40)
    prompts = ["x" * 101, "y" * 64, "z"]
    together = engine.generate(prompts, replace(PARAMS, n=5, seed=100))
    assert engine.stats().num_prompt_tokens_computed == sum(len(prompt) + 4 for prompt in prompts)
    alone = make_engine(prefix_cache=False, max_num_seqs=1)
    seeds = [replace(PARAMS, seed=100 + sample) for sample in range(5)]
    apart = [alone.generate([prompt], params)[0] for prompt in prompts for params in seeds]
    assert list(map(contents, together)) == list(map(contents, apart))


def test_the_samples_of_a_leader_that_is_cancelled_go_on_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(max_tokens_per_step=32)
    expected = [contents(output) for output in engine.generate(["x" * 300], replace(PARAMS, n=3))]
    for num_steps in range(1, 13):
        engine = make_engine(max_tokens_per_step=32, prefix_cache=False)
        samples = engine._admission.batch(["x" * 300], replace(PARAMS, n=3))
        handles = cancel_after(
            engine._worker.core, num_steps, lambda engine=engine, samples=samples: map(engine._start, samples)
        )
        assert [contents(handle.result(20)) for handle in handles[1:]] == expected[1:]


def cancel_after(core: EngineCore, num_steps: int, start: Callable[[], Any]) -> list[Handle]:
    """Start requests, and cancel the first one after so many steps."""
    step, handles, count = core.step, list[Handle](), 0

    def cancelling_step() -> Any:
        nonlocal count
        count += 1
        if count == num_steps:
            handles[0].cancel()
        return step()

    core.step = cancelling_step  # type: ignore[method-assign]
    handles += start()
    return handles


@pytest.mark.parametrize("num_tokens", [1, 5, 16, 40])
@pytest.mark.parametrize("delay", [0, 1, 2])
def test_a_fork_outlives_its_parent(make_engine: MakeEngine, num_tokens: int, delay: int) -> None:
    expected = contents(make_engine().generate([PROMPT], PARAMS)[0])
    engine = make_engine(prefix_cache=False)
    parent, child = fork_after(engine, num_tokens, PARAMS)
    list(islice(child, delay))
    parent.cancel()
    assert contents(child.result(20)) == expected


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_forks_in_a_pool_that_is_nearly_full_write_what_they_write_alone(
    make_engine: MakeEngine, prefix_cache: bool
) -> None:
    expected = contents(make_engine().generate([PROMPT], PARAMS)[0])
    engine = make_engine(kv_cache_tokens=160, prefix_cache=prefix_cache)
    parent, child = fork_after(engine, 10, PARAMS)
    family = [parent, child, *(child.fork(PARAMS) for _ in range(3)), parent.fork(PARAMS)]
    outputs = []
    for member in family:
        try:
            outputs.append(contents(member.result(20)))
        except RequestError as error:  # its parent was too fast
            assert "has ended" in str(error)
    assert len(outputs) >= 2 and set(outputs) == {expected}


def test_a_constrained_fork_writes_whole_json_of_its_own(make_engine: MakeEngine) -> None:
    params = SamplingParams(max_tokens=400, temperature=1.0, seed=1, constraint=SCHEMA)
    for num_tokens in (1, 5, 12):
        engine = make_engine(RandomLogitsModel())
        parent, child = fork_after(engine, num_tokens, None, params)
        outputs = [handle.result(20) for handle in (parent, child)]
        for output in outputs:
            if output.finish_reason == "stop":
                assert set(json.loads(output.text)) == {"name", "age"}
        assert outputs[0].token_ids[:num_tokens] == outputs[1].token_ids[:num_tokens]
        assert "stop" in {output.finish_reason for output in outputs}


def test_a_constraint_that_the_output_so_far_breaks_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "no JSON at all, " * 20))
    parent, child = fork_after(engine, 5, SamplingParams(constraint=SCHEMA), SamplingParams(max_tokens=50))
    with pytest.raises(RequestError, match="constraint of a fork must allow the output so far"):
        child.result(20)
    assert parent.result(20).text.startswith("no JSON")


@pytest.mark.parametrize(
    ("params", "expected", "reason"),
    [
        (SamplingParams(max_tokens=4), "abcd", "length"),
        (SamplingParams(stop="cd"), "ab", "stop"),
        (SamplingParams(stop_token_ids=[ord("c")]), "ab", "stop"),
    ],
)
def test_a_fork_that_its_parents_output_ends_already_ends_at_once(
    make_engine: MakeEngine, params: SamplingParams, expected: str, reason: str
) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "abcdefgh" * 10))
    parent, child = fork_after(engine, 6, params, SamplingParams(max_tokens=50))
    [delta] = child
    assert (delta.text, delta.finish_reason) == (expected, reason)
    assert child.result().usage.completion_tokens == len(child.result().token_ids)
    assert len(parent.result(20).text) == 50


def test_a_stop_text_that_begins_before_the_fork_ends_it(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "abcdefgh" * 10))
    parent, child = fork_after(engine, 6, SamplingParams(stop="fgh"), SamplingParams(max_tokens=50))
    assert contents(child.result(20))[::2] == ("abcde", "stop")
    parent.result(20)


def test_half_a_character_at_the_fork_is_whole_in_both(make_engine: MakeEngine) -> None:
    engine = make_engine(ScriptedModel(lambda prompt: "ä" * 40))
    parent, child = fork_after(engine, 5, None, SamplingParams(max_tokens=80))
    assert child.result(20).text == parent.result(20).text == "ä" * 40


def test_a_fork_inherits_log_probabilities_and_cannot_ask_for_more(make_engine: MakeEngine) -> None:
    known = replace(PARAMS, logprobs=3)
    parent, child = fork_after(make_engine(), 20, replace(PARAMS, logprobs=2), known)
    logprobs, whole = child.result(20).logprobs, parent.result(20).logprobs
    assert whole is not None and logprobs is not None and len(logprobs) == 60
    assert logprobs[:20] == tuple(one._replace(top=one.top[:2]) for one in whole[:20])
    parent, child = fork_after(make_engine(), 20, replace(PARAMS, logprobs=4), known)
    with pytest.raises(RequestError, match="logprobs=4 of a fork must be at most those of its parent, logprobs=3"):
        child.result(20)


def test_penalties_count_the_output_before_the_fork(make_engine: MakeEngine) -> None:
    params = replace(PARAMS, frequency_penalty=1.5, repetition_penalty=1.3)
    parent, child = fork_after(make_engine(), 30, params, params)
    assert contents(child.result(20)) == contents(parent.result(20))


def test_a_parent_that_has_ended_cannot_be_forked(make_engine: MakeEngine) -> None:
    engine = make_engine()
    parent = engine.submit(PROMPT, PARAMS)
    parent.result(20)
    with pytest.raises(RequestError, match="has ended"):
        parent.fork().result(20)


@pytest.mark.parametrize("params", [SamplingParams(n=2), SamplingParams(stop_token_ids=[9999]), 5])
def test_what_is_wrong_with_a_fork_is_raised_at_once(make_engine: MakeEngine, params: Any) -> None:
    parent = make_engine().submit(PROMPT, replace(PARAMS, max_tokens=2000))
    with pytest.raises(RequestError, match=r"n=2|stop_token_ids=9999|params=5"):
        parent.fork(params)
    parent.cancel()


def test_the_fork_of_a_waiting_request_is_its_sibling(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1)
    running = engine.submit("x", replace(PARAMS, max_tokens=200))
    waiting = engine.submit(PROMPT, PARAMS)
    child = waiting.fork(PARAMS)
    assert contents(child.result(20)) == contents(waiting.result(20))
    running.result(20)


def test_forks_count_against_the_queue_and_end_with_the_engine(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1, max_queue=3)
    parent = engine.submit(PROMPT, replace(PARAMS, max_tokens=3000))
    next(iter(parent))
    children = [parent.fork() for _ in range(3)]
    with pytest.raises(CapacityError, match="max_queue=3"):
        parent.fork()
    engine.close()
    for handle in [parent, *children]:
        with pytest.raises(EngineClosedError):
            handle.result(20)


def test_no_request_is_kept_alive_by_its_forks(make_engine: MakeEngine) -> None:
    engine = make_engine()
    gc.disable()
    try:
        parent, child = fork_after(engine, 10, replace(PARAMS, max_tokens=2000))
        [request] = [weakref.ref(r) for r in engine._worker.core.scheduler.running if r.request_id == 0]
        parent.result(20)
        list(islice(child, 70))
        del parent
        engine._worker.call(lambda core: None)
        assert request() is None
    finally:
        gc.enable()
    child.cancel()


def test_a_copy_of_a_block_leaves_the_pool_where_it_is(make_engine: MakeEngine) -> None:
    """A write into a pool that anybody else holds would copy all of it."""
    engine = make_engine(kv_cache_tokens=200_000)  # 25 MB a pool and layer
    pool_bytes = engine.stats().kv_cache_bytes
    fork_after(engine, 3, PARAMS)[1].result(20)  # what is compiled and cached the first time is there
    used = mx.get_active_memory()
    mx.reset_peak_memory()
    engine.generate([PROMPT], replace(PARAMS, n=8, max_tokens=5))
    assert mx.get_peak_memory() - used < pool_bytes / 8


def test_read_and_write_move_whole_slots_of_a_layer() -> None:
    layer = PagedLayer(KVShape(2, 3, 4, mx.float32), 4, 2)
    keys, values = mx.random.normal((3, 2, 3)), mx.random.normal((3, 2, 4))
    layer.write(mx.array([1, 6, 4]), keys, values)
    read_keys, read_values = layer.read(mx.array([6, 1, 0]))
    assert mx.array_equal(read_keys[:2], keys[mx.array([1, 0])]).item() and not read_keys[2].any().item()
    assert mx.array_equal(read_values[:2], values[mx.array([1, 0])]).item()


def test_resetting_the_prefix_cache_forgets_and_disturbs_nothing_that_runs(make_engine: MakeEngine) -> None:
    engine = make_engine()
    params = replace(PARAMS, max_tokens=200)
    expected = contents(engine.generate([PROMPT], params)[0])
    assert engine.generate([PROMPT], params)[0].usage.cached_tokens == 16
    running = engine.submit(PROMPT, params)
    next(iter(running))
    engine.reset_prefix_cache()
    assert engine.stats().num_cached_blocks == 0
    later = engine.generate([PROMPT], params)[0]
    assert later.usage.cached_tokens == 0
    assert contents(later) == contents(running.result(20)) == expected


def test_resetting_the_cache_of_a_closed_engine_says_so(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.close()
    with pytest.raises(EngineClosedError):
        engine.reset_prefix_cache()


def test_prefixes_are_shared_among_requests_of_one_salt_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()

    def cached_tokens(salt: str | None) -> int:
        return engine.generate([PROMPT], replace(PARAMS, cache_salt=salt))[0].usage.cached_tokens

    assert [cached_tokens(salt) for salt in (None, "a", "b", "a", None, "\ud800")] == [0, 0, 0, 16, 16, 0]


@pytest.mark.parametrize("salt", ["", 5, b"salt"])
def test_a_salt_is_a_text_that_is_not_empty(salt: Any) -> None:
    with pytest.raises(RequestError, match=r"cache_salt=.* must be a non-empty text or None"):
        SamplingParams(cache_salt=salt)


def test_a_fork_under_another_salt_shares_nothing(make_engine: MakeEngine) -> None:
    parent, child = fork_after(make_engine(), 20, replace(PARAMS, cache_salt="own"))
    assert child.result(20).token_ids == parent.result(20).token_ids
    assert child.result().usage.cached_tokens == 0


def test_the_size_of_the_pools_is_told(make_engine: MakeEngine) -> None:
    stats = make_engine(kv_cache_tokens=1024).stats()
    assert stats.kv_cache_bytes == 1024 * 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, float32
