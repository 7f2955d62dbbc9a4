"""The one thread that computes an embedder's vectors: what callers ask for while it computes is its next batch."""

from __future__ import annotations

import queue
import threading

import mlx.core as mx
import numpy as np

from mlx_agent_llm.embedder.calls import Call, PendingCalls, Row, Vectors
from mlx_agent_llm.errors import EngineClosedError, GenerationError, MLXAgentError
from mlx_agent_llm.models.embedders import LoadedEmbedder
from mlx_agent_llm.process.allocator import keep_freed_buffers
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.process.owner import OwnerProcess

_MAX_TOKENS = {mx.cpu: 256, mx.gpu: 16384}  # of a batch with its padding; on a CPU what its cache holds
_MIN_FILL = 0.8


class EmbedderWorker:
    """Runs an embedding model; every method may be called from any thread of the process that it was made in."""

    def __init__(self, loaded: LoadedEmbedder) -> None:
        if loaded.device.type == mx.cpu:
            keep_freed_buffers()
        self._loaded = loaded
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self.num_batches = 0
        self.owner = OwnerProcess()
        self._thread = threading.Thread(target=self._run, name="mlx-agent-embedder", daemon=True)
        self._thread.start()

    def add(self, call: Call) -> None:
        """Queue a call; EngineClosedError when nobody would compute it."""
        self.owner.check()
        with self._lock:  # so that no call slips in after the close
            if self._is_closed:
                raise EngineClosedError("the embedder is closed")
            self._calls.put(call)

    def close(self) -> None:
        """End every open call with EngineClosedError and stop the thread; in a forked process there is none."""
        if not self.owner.is_current:
            return
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        pending = PendingCalls(_MAX_TOKENS[self._loaded.device.type], _MIN_FILL)
        while self._receive(pending):
            self._compute(pending, pending.take_batch())
        for call in pending.take_all():
            call.future.set_exception(EngineClosedError("the embedder was closed before the texts were embedded"))
        mx.clear_streams()  # as an engine's thread does

    def _receive(self, pending: PendingCalls) -> bool:
        """Let all calls that are there wait for their turn, and wait for one when there is none; False to stop."""
        while not pending or not self._calls.empty():
            call = self._calls.get()
            if call is None:
                return False
            if call.future.set_running_or_notify_cancel():
                pending.add(call)
        return True

    def _compute(self, pending: PendingCalls, rows: list[Row]) -> None:
        try:
            vectors = self._forward(rows)
        except Exception as fault:
            for call in {row.call for row in rows}:
                _fail(pending, call, GenerationError(f"the forward failed: {type(fault).__name__}: {fault}"), fault)
            return
        self.num_batches += 1
        for row, vector in zip(rows, vectors, strict=True):
            row.call.deliver(row.position, vector)

    def _forward(self, rows: list[Row]) -> Vectors:
        lengths = np.array([len(row.token_ids) for row in rows], np.int32)
        tokens = np.zeros((len(rows), lengths.max()), np.int32)
        for row, (ids, length) in enumerate(zip((row.token_ids for row in rows), lengths, strict=True)):
            tokens[row, :length] = ids
        with default_device.set_to(self._loaded.device):
            vectors = self._loaded.model(mx.array(tokens), mx.array(lengths))
        mx.eval(vectors)
        return np.array(vectors)


def _fail(pending: PendingCalls, call: Call, error: MLXAgentError, fault: Exception) -> None:
    error.__cause__ = fault
    pending.drop(call)
    call.future.set_exception(error)
