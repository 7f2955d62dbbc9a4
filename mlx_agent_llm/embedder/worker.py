"""The one thread that computes a model's vectors: what callers ask for while it computes is its next batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import mlx.core as mx

from mlx_agent_llm.core.faults import as_error
from mlx_agent_llm.embedder.calls import Call, PendingCalls, Row, Vectors
from mlx_agent_llm.errors import EngineClosedError, GenerationError, MLXAgentError
from mlx_agent_llm.process.owner import OwnerProcess


class Forward(Protocol):
    """What computes the vectors (B, D) of B rows, on the worker's thread alone."""

    @property
    def max_tokens(self) -> int:
        """How many tokens a batch has at most, with its padding."""

    @property
    def min_fill(self) -> float:
        """How long a row of a batch is at least, as a part of the longest one."""

    def __call__(self, rows: Sequence[Row]) -> Vectors:
        """See the class."""

    def close(self) -> None:
        """Give the model's memory back."""


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
        pending = PendingCalls(forward.max_tokens, forward.min_fill)
        try:
            while self._receive(pending):
                self._compute(forward, pending)
        except BaseException as fault:  # a bug of the worker's own: nobody may be left waiting
            with self._lock:
                self._closed = GenerationError(f"the model stopped: {type(fault).__name__}: {fault}")
                self._closed.__cause__ = fault
        self._drain()
        forward.close()
        mx.clear_streams()  # as an engine's thread does

    def _receive(self, pending: PendingCalls) -> bool:
        """Let all calls that are there wait for their turn, and wait for one when there is none; False to stop."""
        while not pending or not self._calls.empty():
            call = self._calls.get()
            if call is None:
                return False
            if call.future.set_running_or_notify_cancel():
                self._open.add(call)
                pending.add(call)
        return True

    def _compute(self, forward: Forward, pending: PendingCalls) -> None:
        rows = pending.take_batch()
        self._compute_rows(forward, pending, rows)
        self._open -= {row.call for row in rows if row.call.future.done()}

    def _compute_rows(self, forward: Forward, pending: PendingCalls, rows: Sequence[Row]) -> None:
        """A batch of several callers that fails is computed once more for each of them: one bad text fails alone."""
        calls = list(dict.fromkeys(row.call for row in rows))
        try:
            vectors = forward(rows)
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
            self._compute_rows(forward, pending, [row for row in rows if row.call is call])

    def _drain(self) -> None:
        """End all that nobody computes any more."""
        assert self._closed is not None
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None and call.future.set_running_or_notify_cancel():
                self._open.add(call)
        for open_call in self._open:
            open_call.future.set_exception(_copy_of(self._closed))


def _copy_of(error: MLXAgentError) -> MLXAgentError:
    """An error of its own for each caller: what raises one writes its traceback into it."""
    own = type(error)(*error.args)
    own.__cause__ = error.__cause__
    return own
