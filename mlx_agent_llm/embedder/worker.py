"""The one thread that computes a model's vectors: what callers ask for while it computes is its next batch."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import mlx.core as mx

from mlx_agent_llm.core.faults import as_error, drop_locals
from mlx_agent_llm.embedder.calls import Call, PendingCalls, Row, Vectors
from mlx_agent_llm.errors import EngineClosedError, GenerationError, MLXAgentError
from mlx_agent_llm.process.owner import OwnerProcess


class Forward(Protocol):
    """What computes the vectors (B, D) of B rows, on the worker's thread alone."""

    @property
    def max_begun(self) -> int:
        """How many batches are begun before the vectors of the first are asked for."""

    @property
    def max_tokens(self) -> int:
        """How many tokens a batch has at most, with its padding."""

    @property
    def min_fill(self) -> float:
        """How long a row of a batch is at least, as a part of the longest one."""

    @property
    def few_tokens(self) -> int:
        """The tokens, with padding, that a batch may have with rows of any length."""

    def begin(self, rows: Sequence[Row]) -> Callable[[], Vectors]:
        """Compute rows, and return what waits for their vectors."""

    def close(self) -> None:
        """Give the model's memory back."""


class _Begun(NamedTuple):
    """A batch that is computed; `wait` raises what went wrong, which may have been its beginning."""

    rows: Sequence[Row]
    wait: Callable[[], Vectors]


class BatchWorker:
    """Runs a forward; every method may be called from any thread of the process that it was made in.

    make_forward is called on the worker's thread, before the constructor returns; what it raises is raised there.
    """

    def __init__(self, make_forward: Callable[[], Forward]) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed: MLXAgentError | None = None
        self._open = set[Call]()  # what the thread has taken and not ended
        self.num_batches = 0
        self.owner = OwnerProcess()
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(make_forward, started), name="mlx-agent-embedder", daemon=True
        )
        self._thread.start()
        if (fault := started.get()) is not None:
            raise fault

    def add(self, call: Call) -> None:
        """Queue a call; EngineClosedError when nobody would compute it, GenerationError when the thread is gone."""
        self.owner.check()
        with self._lock:  # so that no call slips in after the close
            if self._closed is not None:
                raise _copy_of(self._closed)
            self._calls.put(call)

    def close(self) -> None:
        """End every open call with EngineClosedError and stop the thread; in a forked process there is none."""
        if not self.owner.is_current:
            return
        with self._lock:
            self._closed = self._closed or EngineClosedError("the model is closed")
            self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self, make_forward: Callable[[], Forward], started: queue.SimpleQueue[BaseException | None]) -> None:
        try:
            forward = make_forward()
        except BaseException as fault:
            started.put(fault)
            return
        started.put(None)
        pending = PendingCalls(forward.max_tokens, forward.min_fill, forward.few_tokens)
        begun = deque[_Begun]()
        try:
            while self._receive(pending, may_wait=not begun):
                if pending:
                    begun.append(_begin(forward, pending.take_batch()))
                if len(begun) == forward.max_begun or not pending:
                    self._finish(forward, pending, begun.popleft())
        except BaseException as fault:  # a bug of the worker's own: nobody may be left waiting
            with self._lock:
                self._closed = GenerationError(f"the model stopped: {type(fault).__name__}: {fault}")
                self._closed.__cause__ = fault
        self._drain()
        forward.close()
        mx.clear_streams()  # as an engine's thread does

    def _receive(self, pending: PendingCalls, may_wait: bool) -> bool:
        """Let all calls that are there wait for their turn, and wait for one when there is none; False to stop."""
        while (may_wait and not pending) or not self._calls.empty():
            call = self._calls.get()
            if call is None:
                return False
            if call.future.set_running_or_notify_cancel():
                self._open.add(call)
                pending.add(call)
        return True

    def _finish(self, forward: Forward, pending: PendingCalls, begun: _Begun) -> None:
        self._deliver(forward, pending, begun)
        self._open -= {row.call for row in begun.rows if row.call.future.done()}

    def _deliver(self, forward: Forward, pending: PendingCalls, begun: _Begun) -> None:
        """A batch of several callers that fails is computed once more for each of them: one bad text fails alone."""
        rows = begun.rows
        calls = list(dict.fromkeys(row.call for row in rows))
        try:
            vectors = begun.wait()
        except Exception as fault:
            if len(calls) == 1:
                pending.drop(calls[0])
                calls[0].future.set_exception(as_error(fault))
                return
        else:
            self.num_batches += 1
            for row, vector in zip(rows, vectors, strict=True):
                row.call.deliver(row.position, vector)
            return
        for call in calls:  # by now nobody holds the fault, nor what it holds
            self._deliver(forward, pending, _begin(forward, [row for row in rows if row.call is call]))

    def _drain(self) -> None:
        """End all that nobody computes any more."""
        assert self._closed is not None
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None and call.future.set_running_or_notify_cancel():
                self._open.add(call)
        for open_call in self._open:
            open_call.future.set_exception(_copy_of(self._closed))


def _begin(forward: Forward, rows: Sequence[Row]) -> _Begun:
    try:
        return _Begun(rows, forward.begin(rows))
    except Exception as fault:
        drop_locals(fault)
        return _Begun(rows, partial(_raise, fault))


def _raise(fault: Exception) -> Vectors:
    raise fault


def _copy_of(error: MLXAgentError) -> MLXAgentError:
    """An error of its own for each caller: what raises one writes its traceback into it."""
    own = type(error)(*error.args)
    own.__cause__ = error.__cause__
    return own
