"""How many requests may wait, and who is next when one of them may be replaced."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.errors import QueueFullError


class QueueLimit:
    """Lets at most max_queue requests wait at a time; any thread may ask.

    A call of many requests lines up for room, one request at a time, so that such calls take turns. They fill half of
    the queue, so that those who submit single requests find room in the other half.
    """

    def __init__(self, max_queue: int, scheduler: Scheduler) -> None:
        self.num_open = 0  # requests that wait or run
        self._max_queue = max_queue
        self._max_of_calls = max(max_queue // 2, 1)
        self._scheduler = scheduler
        self._line: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Count one more request; QueueFullError when too many wait already."""
        with self._lock:
            if self._num_waiting() >= self._max_queue:
                raise QueueFullError(f"max_queue={self._max_queue} requests are waiting already")
            self.num_open += 1

    def leave(self) -> None:
        """Count one request less: it has ended."""
        with self._lock:
            self.num_open -= 1
        self.admit()

    def line_up(self, start_next: Callable[[], None]) -> None:
        """Call start_next, once, when there is room: it may enter then, and line up again. `admit` looks for room."""
        self._line.append(start_next)

    def admit(self) -> None:
        """Let in who is in line as far as there is room: to be called when a request began to run or has ended."""
        while self._line and (start_next := self._next_in_line()) is not None:
            start_next()

    def _next_in_line(self) -> Callable[[], None] | None:
        with self._lock:
            has_room = self._num_waiting() < self._max_of_calls
            return self._line.popleft() if self._line and has_room else None

    def _num_waiting(self) -> int:
        return self.num_open - len(self._scheduler.running)
