"""Calls of many prompts: they start as the queue has room, leave room for others, and end with the first failure."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from mlx_agent_llm import (
    Engine,
    EngineClosedError,
    GenerationError,
    QueueFullError,
    RequestOutput,
    RequestTimeout,
    SamplingParams,
)
from mlx_agent_llm.engine.batch_call import BatchCall
from mlx_agent_llm.engine.worker import Worker
from mlx_agent_llm.testing import ScriptedModel
from tests.support.waiting import is_idle, wait_until

MakeEngine = Callable[..., Engine]
Generate = Callable[..., list[RequestOutput]]

PARAMS = SamplingParams(max_tokens=20, temperature=1.0, seed=3, ignore_eos=True)
ENDLESS = SamplingParams(max_tokens=4000, ignore_eos=True)


def in_a_loop(engine: Engine, *arguments: Any) -> list[RequestOutput]:
    return asyncio.run(asyncio.wait_for(engine.agenerate(*arguments), 60))


WAYS = pytest.mark.parametrize("generate", [Engine.generate, in_a_loop], ids=["generate", "agenerate"])


@WAYS
@pytest.mark.parametrize("max_queue", [1, 2, 5])
def test_a_call_of_more_prompts_than_the_queue_holds_waits_for_room(
    make_engine: MakeEngine, generate: Generate, max_queue: int
) -> None:
    engine = make_engine(ScriptedModel(str.upper), max_queue=max_queue, max_num_seqs=3)
    prompts = [f"prompt {number}" for number in range(40)]
    assert [output.text for output in generate(engine, prompts)] == [prompt.upper() for prompt in prompts]
    assert engine.stats().max_batch_size == 3


@WAYS
def test_more_samples_than_the_queue_holds_are_what_they_are_without_a_limit(
    make_engine: MakeEngine, generate: Generate
) -> None:
    params = replace(PARAMS, n=6)
    expected = [output.token_ids for output in make_engine().generate(["one", "another"], params)]
    engine = make_engine(max_queue=2, max_num_seqs=2)
    assert [output.token_ids for output in generate(engine, ["one", "another"], params)] == expected


def test_a_call_that_is_larger_than_the_queue_leaves_room_for_single_requests(make_engine: MakeEngine) -> None:
    engine = make_engine(max_queue=4, max_num_seqs=1)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(engine.generate, ["x"] * 24, replace(PARAMS, max_tokens=30))
        wait_until(lambda: engine.stats().num_waiting == 2)
        for number in range(3):
            assert len(engine.submit(f"single {number}", PARAMS).result(20).token_ids) == 20
            assert not call.done(), "those who came meanwhile need not wait for all of it"
        assert len(call.result(60)) == 24


def test_two_large_calls_take_turns(make_engine: MakeEngine) -> None:
    engine = make_engine(max_queue=2, max_num_seqs=1)
    with ThreadPoolExecutor() as threads:
        long = threads.submit(engine.generate, ["x"] * 30, PARAMS)
        wait_until(lambda: engine.stats().num_running == 1)
        short = threads.submit(engine.generate, ["y"] * 4, PARAMS)
        assert len(short.result(60)) == 4
        assert not long.done()
        assert len(long.result(60)) == 30


@WAYS
def test_a_queue_that_is_full_of_others_refuses_a_call_before_it_starts_anything(
    make_engine: MakeEngine, generate: Generate
) -> None:
    engine = make_engine(max_queue=1, max_num_seqs=1)
    running = engine.submit("x", ENDLESS)
    next(iter(running))
    waiting = engine.submit("y", PARAMS)
    with pytest.raises(QueueFullError, match="max_queue=1 requests are waiting already"):
        generate(engine, ["a", "b", "c"], PARAMS)
    running.cancel()
    assert len(waiting.result(20).token_ids) == 20
    wait_until(lambda: is_idle(engine))
    assert engine.stats().prefix_query_tokens == 2, "something of the refused call was computed"


@WAYS
def test_the_first_failure_ends_a_call_at_once_whichever_prompt_it_is_of(
    make_engine: MakeEngine, generate: Generate
) -> None:
    engine = make_engine()
    params = [ENDLESS, replace(ENDLESS, timeout=0.1), ENDLESS]
    with pytest.raises(RequestTimeout, match=r"did not finish within timeout=0.1 s"):
        generate(engine, ["x", "y", "z"], params)
    wait_until(lambda: is_idle(engine), 1)
    assert engine.stats().num_generated_tokens < 3 * 2000, "the others went on"


@WAYS
def test_a_failure_starts_nothing_more_of_a_call_that_waits_for_room(
    make_engine: MakeEngine, generate: Generate
) -> None:
    engine = make_engine(max_queue=1, max_num_seqs=1)
    with pytest.raises(RequestTimeout):
        generate(engine, ["x"] * 50, [replace(ENDLESS, timeout=0.1), *[PARAMS] * 49])
    wait_until(lambda: is_idle(engine))
    assert engine.stats().prefix_query_tokens <= 3


async def test_a_call_that_waits_for_room_does_not_block_its_event_loop_and_can_be_cancelled(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(max_queue=1, max_num_seqs=1)
    task = asyncio.create_task(engine.agenerate(["x"] * 9, ENDLESS))
    while engine.stats().num_waiting == 0:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not is_idle(engine):
        await asyncio.sleep(0.001)
    assert engine.stats().prefix_query_tokens <= 2
    assert len((await engine.agenerate(["y"], PARAMS))[0].token_ids) == 20


def test_an_interrupt_of_a_call_cancels_its_requests(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(max_queue=2, max_num_seqs=2)

    def interrupted(self: BatchCall) -> list[RequestOutput]:
        wait_until(lambda: engine.stats().num_running == 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchCall, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(["x"] * 20, ENDLESS)
    wait_until(lambda: is_idle(engine))
    assert engine.stats().prefix_query_tokens <= 3


@WAYS
def test_closing_the_engine_ends_calls_that_wait_for_room(make_engine: MakeEngine, generate: Generate) -> None:
    engine = make_engine(max_queue=2, max_num_seqs=1)
    with ThreadPoolExecutor() as threads:
        calls: list[Future[Any]] = []
        for num_waiting in (1, 2):  # the first call runs one and has one in its half of the queue
            calls.append(threads.submit(generate, engine, ["x"] * 20, ENDLESS))
            wait_until(lambda num_waiting=num_waiting: engine.stats().num_waiting == num_waiting)  # type: ignore[misc]
        engine.close()
        for call in calls:
            with pytest.raises(EngineClosedError, match="the engine is closed"):
                call.result(20)


def test_a_call_that_waits_for_room_is_told_of_a_bug_that_stops_the_engine(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(max_queue=1, max_num_seqs=1)
    others = engine.submit("x", ENDLESS)
    next(iter(others))
    started = threading.Event()
    add = Worker.add

    def noting_add(*arguments: Any) -> None:
        add(*arguments)
        started.set()

    def broken_step() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Worker, "add", noting_add)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(engine.generate, ["y"] * 9, PARAMS)
        assert started.wait(20)
        monkeypatch.setattr(engine._worker.core, "step", broken_step)
        with pytest.raises(GenerationError, match="the engine stopped: ZeroDivisionError: a bug"):
            call.result(20)


def test_a_call_that_is_cancelled_before_its_start_starts_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine()
    call = engine._batch_call(["x"] * 3, PARAMS)
    call.cancel()
    call.start()
    assert engine.stats().num_waiting == engine._worker.limit.num_open == 0
