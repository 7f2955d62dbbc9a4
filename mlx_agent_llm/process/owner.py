"""The process that an engine lives in: a fork copies its memory, but neither its thread nor those of MLX."""

from __future__ import annotations

import os

from mlx_agent_llm.errors import ForkedProcessError


class OwnerProcess:
    """Remembers the process that it was made in."""

    def __init__(self) -> None:
        self._process_id = os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether this is that process, and not a forked child of it."""
        return os.getpid() == self._process_id

    def check(self) -> None:
        """Raise ForkedProcessError in any other process."""
        if not self.is_current:
            raise ForkedProcessError(
                f"this engine runs in process {self._process_id} and cannot be used in process {os.getpid()}, which "
                "was forked from it: a fork copies no threads. Start an engine in the child, with MLX not yet used in "
                "the parent, or start the child with multiprocessing's 'spawn' method"
            )
