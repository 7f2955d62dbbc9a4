"""BatchCall: many requests that are asked for at once, and answered as one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from mlx_agent_llm.engine.handle import copy_of, fold
from mlx_agent_llm.engine.submission import Submission
from mlx_agent_llm.engine.worker import Worker
from mlx_agent_llm.errors import MLXAgentError, QueueFullError
from mlx_agent_llm.request import Delta, RequestOutput


class BatchCall:
    """Starts its requests in order, each when the queue has room for it; ends with the last one, or the first failure.

    Whoever starts it has to cancel it when the result is there, or not wanted any more.
    """

    def __init__(self, worker: Worker, submissions: Sequence[Submission]) -> None:
        self._worker = worker
        self._rows = [_Row(submission, self) for submission in submissions]
        self._num_started = 0
        self._num_left = len(submissions)  # to end
        self._failure: MLXAgentError | None = None
        self._lock = threading.Lock()
        self._end: Future[None] = Future()
        self._end.set_running_or_notify_cancel()  # or a task that waits and is cancelled would cancel it

    def start(self) -> None:
        """Start as many requests as there is room for; QueueFullError, or EngineClosedError, when that is none.

        The engine's thread starts the others. Does nothing when the call was cancelled.
        """
        with self._lock:
            if not self._rows:
                self._finish()
            if not self._end.done():
                self._add_next()
        self._worker.limit.admit()

    def cancel(self) -> None:
        """Start nothing more and end what runs."""
        with self._lock:
            self._finish()
        rows, self._rows = self._rows, []  # or they and the call would keep each other
        for row in rows[: self._num_started]:
            if not row.is_finished:
                self._worker.abort(row.submission.request_id)

    def result(self) -> list[RequestOutput]:
        """Wait for the end; the outputs in order, or the error of the first request that failed."""
        self._end.result()
        return self._outputs()

    async def aresult(self) -> list[RequestOutput]:
        """Like result, without blocking the event loop."""
        await asyncio.wrap_future(self._end)
        return self._outputs()

    def note_end(self, error: MLXAgentError | None) -> None:
        """One of the requests has ended; the engine's thread calls this."""
        with self._lock:
            self._num_left -= 1
            if error is not None or self._num_left == 0:
                self._finish(error)

    def _add_next(self) -> None:
        """Start the next request and line up for the one after it; holds the lock."""
        row = self._rows[self._num_started]
        self._worker.add(row.submission, row)
        self._num_started += 1
        if self._num_started < len(self._rows):
            self._worker.limit.line_up(self._start_next)

    def _start_next(self) -> None:
        """Called when it is this call's turn."""
        with self._lock:
            if self._end.done():
                return
            try:
                self._add_next()
            except QueueFullError:  # somebody was faster
                self._worker.limit.line_up(self._start_next)
            except MLXAgentError as error:
                self._finish(error)

    def _finish(self, error: MLXAgentError | None = None) -> None:
        """Let go who waits; holds the lock."""
        if not self._end.done():
            self._failure = error
            self._end.set_result(None)

    def _outputs(self) -> list[RequestOutput]:
        if self._failure is not None:
            raise copy_of(self._failure)
        return [fold(row.deltas) for row in self._rows]


class _Row:
    """One request of a call, and its deltas so far."""

    def __init__(self, submission: Submission, call: BatchCall) -> None:
        self.submission = submission
        self.deltas: list[Delta] = []
        self._call = call

    @property
    def is_finished(self) -> bool:
        return bool(self.deltas) and self.deltas[-1].finish_reason is not None

    def deliver(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if delta.finish_reason is not None:
            self._call.note_end(delta.error)
