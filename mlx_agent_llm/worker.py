"""The one thread that owns MLX (streams are thread-local): it takes commands from a queue and steps the core."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import mlx.core as mx

from mlx_agent_llm.core.loop import Emission, EngineCore
from mlx_agent_llm.errors import EngineClosedError, GenerationError, MLXAgentError
from mlx_agent_llm.request import Request

Command = Callable[[EngineCore], list[Emission]]


class Worker:
    """Runs an EngineCore; every method may be called from any thread."""

    def __init__(self, make_core: Callable[[], EngineCore]) -> None:
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed: MLXAgentError | None = None
        started: queue.SimpleQueue[EngineCore | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(make_core, started), name="mlx-agent-engine", daemon=True
        )
        self._thread.start()
        core = started.get()
        if isinstance(core, BaseException):
            raise core
        self.core = core

    def add(self, request: Request) -> None:
        """Queue a request; EngineClosedError when nobody would run it."""

        def command(core: EngineCore) -> list[Emission]:
            core.add(request)
            return []

        with self._lock:  # so that no request slips in behind the close
            if self._closed is not None:
                raise type(self._closed)(*self._closed.args) from self._closed.__cause__
            self._commands.put(command)

    def abort(self, request_id: int) -> None:
        """End a request as cancelled."""
        self._commands.put(lambda core: core.abort(request_id))

    def close(self) -> None:
        """End every open request with EngineClosedError and stop the thread."""
        with self._lock:
            self._closed = self._closed or EngineClosedError("the engine is closed")
            self._commands.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self, make_core: Callable[[], EngineCore], started: queue.SimpleQueue[EngineCore | BaseException]) -> None:
        try:
            core = make_core()
        except BaseException as fault:
            started.put(fault)
            return
        started.put(core)
        try:
            while self._obey(core):
                _deliver(core.step())
        except BaseException as fault:  # a bug of the engine's own: nobody may be left waiting
            with self._lock:
                self._closed = GenerationError(f"the engine stopped: {type(fault).__name__}: {fault}")
                self._closed.__cause__ = fault
        self._drain(core)
        # MLX's way to end a thread; otherwise its thread-local compile cache is torn down while the interpreter may be
        # shutting down already, and the process aborts (seen in 11 of 12 runs without, in 0 of 12 with it).
        mx.clear_streams()

    def _obey(self, core: EngineCore) -> bool:
        """Carry out the commands that are there, waiting for one when there is nothing to do; False to stop."""
        while not core.has_work or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            _deliver(command(core))
        return True

    def _drain(self, core: EngineCore) -> None:
        while not self._commands.empty():
            command = self._commands.get()
            if command is not None:
                _deliver(command(core))
        assert self._closed is not None
        _deliver(core.fail_all(self._closed))
        core.close()


def _deliver(outputs: list[Emission]) -> None:
    for request, delta in outputs:
        request.sink(delta)
