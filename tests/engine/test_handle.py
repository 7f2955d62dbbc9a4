"""A handle that many wait for: threads and tasks, of one event loop and of several, for deltas and for the result."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from mlx_agent_llm import (
    Delta,
    Engine,
    Handle,
    MLXAgentError,
    RequestOutput,
    RequestTimeout,
    SamplingParams,
    Timings,
    UnsupportedSchemaError,
    Usage,
)

MakeEngine = Callable[..., Engine]

PARAMS = SamplingParams(max_tokens=300, temperature=1.0, seed=3, ignore_eos=True)
NUM_DELTAS = 200


def make_handle() -> Handle:
    return Handle(cancel=lambda: None)


def deliver_all(handle: Handle, error: MLXAgentError | None = None) -> None:
    """What the engine's thread does: the numbers from 0 on as token ids, and an end."""
    for number in range(NUM_DELTAS - 1):
        handle.deliver(Delta(f"{number} ", (number,)))
    reason: Any = "error" if error else "stop"
    handle.deliver(Delta(f"{NUM_DELTAS - 1} ", (NUM_DELTAS - 1,), reason, Usage(), Timings(), error))


def expected_output() -> RequestOutput:
    handle = make_handle()
    deliver_all(handle)
    return handle.result()


def in_a_loop_of_its_own(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(make(), 20))


async def test_two_tasks_that_await_one_handle_both_get_its_result(make_engine: MakeEngine) -> None:
    handle = make_engine().submit("x", PARAMS)
    async with asyncio.timeout(20):
        one, other = await asyncio.gather(handle.aresult(), handle.aresult())
    assert one == other == handle.result()
    assert len(one.token_ids) == 300


def test_tasks_of_two_event_loops_and_threads_wait_for_one_handle_in_any_mix(make_engine: MakeEngine) -> None:
    handle = make_engine().submit("x", PARAMS)

    async def await_three_times() -> list[RequestOutput]:
        return await asyncio.gather(*(handle.aresult() for _ in range(3)))

    with ThreadPoolExecutor() as threads:
        in_loops = [threads.submit(in_a_loop_of_its_own, await_three_times) for _ in range(2)]
        in_threads = [threads.submit(handle.result, 20) for _ in range(3)]
        tokens = [token_id for delta in handle for token_id in delta.token_ids]
    outputs = [output for future in in_loops for output in future.result()]
    outputs += [future.result() for future in in_threads]
    assert outputs == [handle.result()] * 9
    assert tuple(tokens) == handle.result().token_ids


@pytest.mark.parametrize("attempt", range(20))
def test_each_delta_goes_to_one_of_those_that_iterate_and_all_of_them_end(attempt: int) -> None:
    handle, expected = make_handle(), expected_output()

    async def take() -> list[Delta]:
        return [delta async for delta in handle]

    async def take_twice() -> list[list[Delta]]:
        return await asyncio.gather(take(), take())

    with ThreadPoolExecutor() as threads:
        in_loops = [threads.submit(in_a_loop_of_its_own, take_twice) for _ in range(2)]
        in_threads = [threads.submit(list, handle) for _ in range(2)]
        result = threads.submit(handle.result, 20)
        threads.submit(deliver_all, handle)
        taken = [deltas for future in in_loops for deltas in future.result()]
        taken += [future.result() for future in in_threads]
    assert all(deltas == sorted(deltas, key=lambda delta: delta.token_ids) for deltas in taken)
    assert sorted(token_id for deltas in taken for delta in deltas for token_id in delta.token_ids) == list(
        expected.token_ids
    )
    assert result.result() == expected
    assert list(handle) == []


def test_a_result_takes_no_delta_from_those_that_iterate() -> None:
    handle = make_handle()
    deltas = iter(handle)
    handle.deliver(Delta("first "))
    assert next(deltas).text == "first "
    deliver_all(handle)
    assert handle.result().text.startswith("first 0 1 ")
    assert len(list(deltas)) == NUM_DELTAS


def test_everybody_who_waits_for_a_request_that_fails_is_told() -> None:
    handle = make_handle()
    started = threading.Barrier(5)

    def told(wait: Callable[[], Any]) -> MLXAgentError:
        started.wait(20)
        with pytest.raises(RequestTimeout) as caught:
            wait()
        return caught.value

    async def take() -> None:
        async for _ in handle:
            pass

    ways: list[Callable[[], Any]] = [
        lambda: handle.result(20),
        lambda: in_a_loop_of_its_own(handle.aresult),
        lambda: list(handle),
        lambda: in_a_loop_of_its_own(take),
    ]
    with ThreadPoolExecutor() as threads:
        errors = [threads.submit(told, way) for way in ways]
        started.wait(20)
        threading.Event().wait(0.1)  # they wait by now
        deliver_all(handle, RequestTimeout("too late"))
    assert {str(future.result()) for future in errors} == {"too late"}
    assert len({id(future.result()) for future in errors}) == 4
    assert list(handle) == []


async def test_a_task_that_is_cancelled_while_it_waits_disturbs_none_of_the_others() -> None:
    handle = make_handle()
    cancelled, patient = asyncio.create_task(handle.aresult()), asyncio.create_task(handle.aresult())
    await asyncio.sleep(0)
    cancelled.cancel()
    with suppress(asyncio.CancelledError):
        await cancelled
    await asyncio.to_thread(deliver_all, handle)
    assert await asyncio.wait_for(patient, 20) == expected_output()
    assert handle.result() == expected_output()


async def test_an_iteration_that_is_left_leaves_the_rest_to_the_others() -> None:
    handle = make_handle()

    async def take_one() -> str:
        deltas: AsyncIterator[Delta] = aiter(handle)
        text = (await anext(deltas)).text
        await deltas.aclose()  # type: ignore[attr-defined]
        return text

    first, second = asyncio.create_task(take_one()), asyncio.create_task(take_one())
    await asyncio.sleep(0)
    await asyncio.to_thread(deliver_all, handle)
    assert {await first, await second} == {"0 ", "1 "}
    assert len([delta async for delta in handle]) == NUM_DELTAS - 2


def test_a_handle_is_finished_when_its_request_is() -> None:
    handle = make_handle()
    deltas: Iterator[Delta] = iter(handle)
    handle.deliver(Delta("a"))
    assert not handle.is_finished
    next(deltas)
    deliver_all(handle)
    assert handle.is_finished


def test_an_error_of_any_kind_is_raised_as_it_is() -> None:
    handle = make_handle()
    error = UnsupportedSchemaError("/a", "not", "no reason")
    error.__cause__ = KeyError("not")
    deliver_all(handle, error)
    with pytest.raises(UnsupportedSchemaError, match="'not' cannot be enforced exactly: no reason") as caught:
        handle.result()
    assert caught.value is not error and caught.value.__cause__ is error.__cause__
    assert (caught.value.pointer, caught.value.keyword) == ("/a", "not")
