"""Waiting for what the engine's thread does in its own time."""

import signal
import threading
import time
from collections.abc import Callable

from mlx_agent_llm import Engine


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return as soon as the condition holds; an AssertionError when it does not in so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def is_idle(engine: Engine) -> bool:
    """Whether the engine has no request and holds no block."""
    stats = engine.stats()
    return (stats.num_running, stats.num_waiting, stats.num_used_blocks) == (0, 0, 0)


def interrupt_when(condition: Callable[[], bool]) -> list[float]:
    """Interrupt the main thread as Ctrl-C does, once the condition holds; the list gets the time of that."""
    main, times = threading.main_thread().ident, list[float]()
    assert main is not None

    def interrupt() -> None:
        wait_until(condition)
        times.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    return times
