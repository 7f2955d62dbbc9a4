"""The thread of a forward that computes one batch while the next one is begun."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mlx_agent_llm.embedder.calls import Call, Row, Vectors
from mlx_agent_llm.embedder.worker import BatchWorker
from mlx_agent_llm.errors import EngineClosedError, GenerationError

TIMEOUT = 60.0  # seconds


class StepwiseForward:
    """One row a batch, of which the vector is its first token; tells what it does, and goes on when it is let."""

    min_fill, max_tokens, few_tokens = 1.0, 1, 0

    def __init__(self, max_begun: int) -> None:
        self.max_begun = max_begun
        self.steps: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.may_end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def begin(self, rows: Sequence[Row]) -> Callable[[], Vectors]:
        """See Forward."""
        tokens = [row.token_ids[0] for row in rows]
        self.steps.put(f"begin {tokens}")
        if 13 in tokens:
            raise MemoryError("no room")

        def wait() -> Vectors:
            self.steps.put(f"end {tokens}")
            self.may_end.get(timeout=TIMEOUT)
            return np.array([tokens], np.float32).T

        return wait

    def close(self) -> None:
        """See Forward."""

    def next_steps(self, count: int) -> list[str]:
        """What it does next."""
        return [self.steps.get(timeout=TIMEOUT) for _ in range(count)]


def call_of(*tokens: int) -> Call:
    return Call([[token] for token in tokens], [1] * len(tokens), dimensions=1)


def test_the_next_batch_is_begun_before_the_vectors_of_the_last_are_waited_for() -> None:
    forward = StepwiseForward(max_begun=2)
    worker = BatchWorker(lambda: forward)
    worker.add(call := call_of(3, 2, 1))
    assert forward.next_steps(3) == ["begin [1]", "begin [2]", "end [1]"]
    forward.may_end.put(None)
    assert forward.next_steps(2) == ["begin [3]", "end [2]"]
    forward.may_end.put(None)
    forward.may_end.put(None)
    assert call.future.result(TIMEOUT).tolist() == [[3], [2], [1]]
    worker.close()


def test_one_that_computes_when_it_begins_has_one_batch_at_a_time() -> None:
    forward = StepwiseForward(max_begun=1)
    worker = BatchWorker(lambda: forward)
    for _ in range(2):
        forward.may_end.put(None)
    worker.add(call := call_of(2, 1))
    assert call.future.result(TIMEOUT).tolist() == [[2], [1]]
    assert forward.next_steps(4) == ["begin [1]", "end [1]", "begin [2]", "end [2]"]
    worker.close()


def test_a_batch_that_cannot_be_begun_fails_its_call_and_not_the_one_under_way() -> None:
    forward = StepwiseForward(max_begun=2)
    worker = BatchWorker(lambda: forward)
    worker.add(good := call_of(2, 1))
    assert forward.next_steps(3) == ["begin [1]", "begin [2]", "end [1]"]
    worker.add(bad := call_of(13))
    for _ in range(2):
        forward.may_end.put(None)
    assert good.future.result(TIMEOUT).tolist() == [[2], [1]]
    with pytest.raises(GenerationError, match="no room"):
        bad.future.result(TIMEOUT)
    worker.close()


def test_a_close_ends_the_calls_of_batches_under_way() -> None:
    forward = StepwiseForward(max_begun=2)
    worker = BatchWorker(lambda: forward)
    worker.add(call := call_of(4, 3, 2, 1))
    assert forward.next_steps(3)[-1] == "end [1]"
    closing = threading.Thread(target=worker.close)
    closing.start()
    while worker._calls.empty():
        time.sleep(0.001)
    forward.may_end.put(None)
    with pytest.raises(EngineClosedError):
        call.future.result(TIMEOUT)
    closing.join(TIMEOUT)
    assert forward.steps.empty()
