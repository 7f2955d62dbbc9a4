"""The caller's end of one request: its deltas, its result, its cancellation, from any thread or event loop."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator

from mlx_agent_llm.errors import MLXAgentError, RequestError, RequestTimeout
from mlx_agent_llm.process.owner import OwnerProcess
from mlx_agent_llm.request import Delta, RequestOutput, SamplingParams


class Handle:
    """Yields a request's deltas once, to a `for` or an `async for`; result() is their fold.

    A request that failed raises its error from whichever of them meets its end.
    """

    def __init__(
        self, cancel: Callable[[], None], fork: Callable[[SamplingParams | None], Handle] | None = None
    ) -> None:
        self._cancel = cancel
        self._fork = fork
        self._owner = OwnerProcess()
        self._deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        self._seen: list[Delta] = []
        self._wake: Callable[[], None] | None = None

    def deliver(self, delta: Delta) -> None:
        """Hand over a delta; the engine's thread calls this."""
        self._deltas.put(delta)
        if (wake := self._wake) is not None:
            wake()

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
        """Whether the last delta was taken."""
        return bool(self._seen) and self._seen[-1].finish_reason is not None

    def result(self, timeout: float | None = None) -> RequestOutput:
        """Wait for the end and return the whole output; RequestTimeout after `timeout` seconds, the request goes on."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_finished:
            self._owner.check()
            try:
                self._take(self._deltas.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                raise RequestTimeout(f"no end within timeout={timeout} s") from None
        return fold(self._seen)

    async def aresult(self) -> RequestOutput:
        """Like result, without blocking the event loop."""
        async for _ in self:
            pass
        return fold(self._seen)

    def __iter__(self) -> Iterator[Delta]:
        while not self.is_finished:
            self._owner.check()
            yield self._take(self._deltas.get())

    async def __aiter__(self) -> AsyncIterator[Delta]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        self._wake = wake = lambda: _wake_loop(loop, arrived)
        try:
            while not self.is_finished:
                self._owner.check()
                arrived.clear()
                while not self.is_finished and not self._deltas.empty():
                    yield self._take(self._deltas.get_nowait())
                if not self.is_finished:
                    await arrived.wait()
        finally:
            if self._wake is wake:  # a generator that was left early is closed late, maybe after the start of the next
                self._wake = None

    def _take(self, delta: Delta) -> Delta:
        if not self.is_finished:
            self._seen.append(delta)
        if delta.finish_reason is not None:
            self._deltas.put(delta)  # for whoever else waits for the end, in another thread
        if delta.error is not None:
            raise _copy(delta.error)
        return delta


def fold(deltas: list[Delta]) -> RequestOutput:
    """The whole output that a finished list of deltas adds up to."""
    last = deltas[-1]
    if last.error is not None:
        raise _copy(last.error)
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


def _copy(error: MLXAgentError) -> MLXAgentError:
    """A raised error holds the frames of whoever caught it: not for one that several see and that a handle keeps."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _wake_loop(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # the loop was closed while the request ran: nobody is left to wake
        pass
