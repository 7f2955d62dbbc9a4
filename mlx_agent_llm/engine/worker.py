"""The one thread that owns MLX (streams are thread-local): it takes commands from a queue and steps the core."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future

import mlx.core as mx

from mlx_agent_llm.core.answers import Emission
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.engine.delivery import Delivery
from mlx_agent_llm.engine.handle import copy_of
from mlx_agent_llm.engine.queue_limit import QueueLimit
from mlx_agent_llm.engine.submission import Receiver, Submission
from mlx_agent_llm.errors import EngineClosedError, GenerationError, MLXAgentError
from mlx_agent_llm.process.memory_limits import memory_limits
from mlx_agent_llm.process.memory_pressure import MemoryPressure
from mlx_agent_llm.process.owner import OwnerProcess
from mlx_agent_llm.process.switch_interval import short_switch_interval

Command = Callable[[EngineCore], list[Emission]]


class Worker:
    """Runs an EngineCore; every method may be called from any thread of the process that it was made in.

    limit: how many requests may wait.
    """

    def __init__(self, make_core: Callable[[], EngineCore], max_queue: int) -> None:
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed: MLXAgentError | None = None
        self._pressure = MemoryPressure()
        self.owner = OwnerProcess()
        started: queue.SimpleQueue[EngineCore | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(make_core, started), name="mlx-agent-engine", daemon=True
        )
        self._thread.start()
        core = started.get()
        if isinstance(core, BaseException):
            raise core
        self.core = core
        self.limit = QueueLimit(max_queue, core.scheduler)

    def add(self, submission: Submission, receiver: Receiver) -> None:
        """Queue a request, whose deltas go to the receiver.

        QueueFullError when too many wait already, EngineClosedError when nobody would run it.
        """
        self.owner.check()
        self.limit.enter()
        try:
            self._put(Delivery(submission, receiver, self.limit).start)
        except BaseException:
            self.limit.leave()
            raise

    def call(self, function: Callable[[EngineCore], None]) -> None:
        """Run a function between two steps and wait until it is done; EngineClosedError when nobody would run it."""
        done = Future[None]()

        def command(core: EngineCore) -> list[Emission]:
            try:
                function(core)
            except Exception as fault:  # the caller's, and no reason to stop
                done.set_exception(fault)
            else:
                done.set_result(None)
            return []

        self._put(command)
        done.result()

    def abort(self, request_id: int) -> None:
        """End a request as cancelled; in a forked process there is none to end."""
        if self.owner.is_current:
            self._commands.put(lambda core: core.abort(request_id))

    def close(self) -> None:
        """End every open request with EngineClosedError, stop the thread and empty MLX's cache of freed buffers.

        In a forked process there is no thread, and nothing to end.
        """
        if not self.owner.is_current:
            return
        with self._lock:
            self._closed = self._closed or EngineClosedError("the engine is closed")
            self._commands.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            mx.clear_cache()  # only now: until its end the thread holds what the core was made of

    def _put(self, command: Command) -> None:
        self.owner.check()
        with self._lock:  # so that no request slips in after the close
            if self._closed is not None:
                raise copy_of(self._closed)
            self._commands.put(command)

    def _run(self, make_core: Callable[[], EngineCore], started: queue.SimpleQueue[EngineCore | BaseException]) -> None:
        try:
            core = make_core()
        except BaseException as fault:
            started.put(fault)
            return
        started.put(core)
        try:
            with short_switch_interval, memory_limits:
                self._serve(core)
        except BaseException as fault:  # a bug of the engine's own: nobody may be left waiting
            with self._lock:
                self._closed = GenerationError(f"the engine stopped: {type(fault).__name__}: {fault}")
                self._closed.__cause__ = fault
        self._drain(core)
        # MLX's way to end a thread; otherwise its thread-local compile cache is torn down while the interpreter may be
        # shutting down already, and the process aborts (seen in 11 of 12 runs without, in 0 of 12 with it).
        mx.clear_streams()

    def _serve(self, core: EngineCore) -> None:
        """Step the core until the engine is closed, or until nothing more can be computed."""
        while self._obey(core):
            self._step(core)
            if core.fault is not None:
                raise core.fault

    def _step(self, core: EngineCore) -> None:
        """Step the core and deliver what comes of it; an idle engine holds nothing of that any more."""
        outputs = core.step()
        with core.meter.clock.phase("deliver"):
            _deliver(core, outputs)
            self.limit.admit()
        if self._pressure.has_come():
            core.relieve_memory()

    def _obey(self, core: EngineCore) -> bool:
        """Carry out the commands that are there, waiting for one when there is nothing to do; False to stop."""
        while not core.has_work or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            _deliver(core, command(core))
        return True

    def _drain(self, core: EngineCore) -> None:
        while not self._commands.empty():
            command = self._commands.get()
            if command is not None:
                _deliver(core, command(core))
        assert self._closed is not None
        _deliver(core, core.fail_all(self._closed))
        core.close()


def _deliver(core: EngineCore, outputs: list[Emission]) -> None:
    for request, delta in outputs:
        try:
            request.sink(delta)
        except Exception:  # its caller can be told nothing any more; the others go on
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            _deliver(core, core.abort(request.request_id))
