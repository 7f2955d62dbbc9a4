"""The caller's end of one request: its deltas, its result, its cancellation, from any thread or event loop."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from functools import partial

from mlx_agent_llm.errors import MLXAgentError, RequestError, RequestTimeout
from mlx_agent_llm.process.owner import OwnerProcess
from mlx_agent_llm.request import Delta, RequestOutput, SamplingParams


class Handle:
    """Yields a request's deltas once, to a `for` or an `async for`; result() and aresult() are their fold.

    Any number of threads and tasks, of any event loops, may wait at the same time: each gets the result, and each delta
    goes to one of those that iterate. A request that failed raises its error from whatever meets its end.
    """

    def __init__(
        self, cancel: Callable[[], None], fork: Callable[[SamplingParams | None], Handle] | None = None
    ) -> None:
        self._cancel = cancel
        self._fork = fork
        self._owner = OwnerProcess()
        self._deltas: list[Delta] = []
        self._untaken: queue.SimpleQueue[Delta] = queue.SimpleQueue()  # by those that iterate
        self._is_end_taken = False
        self._wakes: set[Callable[[], None]] = set()  # of the tasks that iterate
        self._end: Future[None] = Future()
        self._end.set_running_or_notify_cancel()  # or a task that is cancelled would cancel it for all that wait

    def deliver(self, delta: Delta) -> None:
        """Hand over a delta; the engine's thread calls this."""
        self._deltas.append(delta)
        self._put(delta)
        if delta.finish_reason is not None:
            self._end.set_result(None)

    def cancel(self) -> None:
        """Ask the engine to end the request; its blocks are free by the next step. Harmless once it has ended."""
        if not self.is_finished:
            self._cancel()

    def fork(self, params: SamplingParams | None = None) -> Handle:
        """Start a request that goes on from the tokens this one has when the engine gets to it, and shares their KV.

        params: by default this request's with a fresh seed. max_tokens, stop texts and the constraint hold for the
        whole output: the first delta repeats what there is of it, so that the result is complete, and may end there and
        then. The new handle raises RequestError when this request has ended by then, or when its output so far does not
        fit the new constraint, or lacks the new logprobs.
        """
        if self._fork is None:
            raise RequestError("this handle's request cannot be forked: Engine.submit gives handles that can")
        return self._fork(params)

    @property
    def is_finished(self) -> bool:
        """Whether the request has ended; its last deltas may not be taken yet."""
        return bool(self._deltas) and self._deltas[-1].finish_reason is not None

    def result(self, timeout: float | None = None) -> RequestOutput:
        """Wait for the end and return the whole output; RequestTimeout after `timeout` seconds, the request goes on."""
        if not self.is_finished:
            self._owner.check()
            try:
                self._end.result(timeout)
            except TimeoutError:
                raise RequestTimeout(f"no end within timeout={timeout} s") from None
        return fold(self._deltas)

    async def aresult(self) -> RequestOutput:
        """Like result, without blocking the event loop."""
        if not self.is_finished:
            self._owner.check()
            await asyncio.wrap_future(self._end)
        return fold(self._deltas)

    def __iter__(self) -> Iterator[Delta]:
        is_over = self._is_end_taken
        while not is_over:
            self._owner.check()
            delta = self._take(self._untaken.get())
            is_over = delta is None
            if delta is not None:
                yield delta

    async def __aiter__(self) -> AsyncIterator[Delta]:
        is_over, arrived = self._is_end_taken, asyncio.Event()
        wake = partial(_wake_loop, asyncio.get_running_loop(), arrived)
        self._wakes.add(wake)
        try:
            while not is_over:
                delta = self._take(await self._next_untaken(arrived))
                is_over = delta is None
                if delta is not None:
                    yield delta
        finally:
            self._wakes.discard(wake)

    async def _next_untaken(self, arrived: asyncio.Event) -> Delta:
        while True:
            self._owner.check()
            arrived.clear()  # first: what arrives after the look sets it again
            try:
                return self._untaken.get_nowait()
            except queue.Empty:
                await arrived.wait()

    def _put(self, delta: Delta) -> None:
        self._untaken.put(delta)
        for wake in tuple(self._wakes):
            wake()

    def _take(self, delta: Delta) -> Delta | None:
        """What an iterator yields of a delta that it got: nothing of the end, where another one has yielded it."""
        if delta.finish_reason is None:
            return delta
        is_first, self._is_end_taken = not self._is_end_taken, True
        self._put(delta)  # for whoever else waits for the end
        if delta.error is not None:
            raise copy_of(delta.error)
        return delta if is_first else None


def fold(deltas: list[Delta]) -> RequestOutput:
    """The whole output that a finished list of deltas adds up to; raises the error of a request that failed."""
    last = deltas[-1]
    if last.error is not None:
        raise copy_of(last.error)
    assert last.finish_reason is not None and last.usage is not None and last.timings is not None
    return RequestOutput(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        finish_reason=last.finish_reason,
        usage=last.usage,
        timings=last.timings,
        logprobs=None if last.logprobs is None else tuple(one for delta in deltas for one in delta.logprobs or ()),
        forced_close=last.forced_close,
        checked=last.checked,
    )


def copy_of(error: MLXAgentError) -> MLXAgentError:
    """An error to raise: one that was raised holds the frames of whoever caught it, and several may see this one."""
    kind = type(error)
    copy = kind.__new__(kind, *error.args)  # whatever its __init__ asks for
    vars(copy).update(vars(error))
    copy.__cause__ = error.__cause__
    return copy


def _wake_loop(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # the loop was closed while the request ran: nobody is left to wake
        pass
