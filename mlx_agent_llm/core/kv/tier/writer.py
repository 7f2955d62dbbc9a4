"""Writes to a store in the background, with a bound on what waits in memory and on the rate."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mlx_agent_llm.core.kv.tier.segment import Part
from mlx_agent_llm.core.kv.tier.store import TierStore

MAX_WAITING_BYTES = 2**26
MAX_BYTES_PER_SECOND = 2**29  # so that a disk goes on serving others


class BackgroundWriter:
    """Puts entries into a store, in order, on a thread of its own; the engine's thread hands them over."""

    def __init__(self, store: TierStore) -> None:
        self.num_written_bytes = 0
        self._store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="mlx-agent-kv-writer")
        self._waiting: set[bytes] = set()
        self._num_waiting_bytes = 0
        self._lock = threading.Lock()
        self._is_closing = threading.Event()

    @property
    def has_room(self) -> bool:
        """Whether more may wait."""
        return self._num_waiting_bytes < MAX_WAITING_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether all is written."""
        return not self._waiting

    def waits(self, key: bytes) -> bool:
        """Whether the bytes of a key are on their way."""
        return key in self._waiting

    def submit(self, parent: bytes, parts: Sequence[Part]) -> None:
        """Hand over entries that follow `parent`."""
        with self._lock:
            self._waiting.update(part.key for part in parts)
            self._num_waiting_bytes += sum(len(part.content) for part in parts)
        self._executor.submit(self._write, parent, parts)

    def take_over(self) -> Future[bool]:
        """Whether this process writes from now on, asked on the thread."""
        return self._executor.submit(self._store.become_writer)

    def close(self) -> None:
        """Write what waits, at any rate, and end the thread."""
        self._is_closing.set()
        self._executor.shutdown()

    def _write(self, parent: bytes, parts: Sequence[Part]) -> None:
        num_bytes = sum(len(part.content) for part in parts)
        try:
            if self._store.put(parent, parts):
                self.num_written_bytes += num_bytes
                self._is_closing.wait(num_bytes / MAX_BYTES_PER_SECOND)
        finally:
            with self._lock:
                self._waiting.difference_update(part.key for part in parts)
                self._num_waiting_bytes -= num_bytes
