"""Engines that tests make by a fixture, and what each has to be when it is closed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlx_agent_llm import Engine

if TYPE_CHECKING:
    from llama_index.llms.mlx_agent import MLXAgentLLM

MakeEngine = Callable[..., Engine]
MakeLLM = Callable[..., "MLXAgentLLM"]


def assert_is_clean(engine: Engine) -> None:
    """Assert that a closed engine holds no request, no block and no thread."""
    worker = engine._worker
    assert not worker._thread.is_alive(), "the engine's thread outlived close"
    worker.core.check_integrity()
    assert not worker.core.has_work, "a request was left open"
    assert worker.core.kv_manager.pool.num_used == 0, "a block was left in use"
    assert worker.limit.num_open == 0, "the queue's count of open requests is off"
