"""Waiting for what the engine's thread does in its own time."""

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
