"""Whether this process was forked from one that had used MLX: its threads are gone then, and every evaluation hangs."""

from __future__ import annotations

import os

import mlx.core as mx

from mlx_agent_llm.errors import ForkedProcessError

_PAGE = 16 * 1024
# What importing MLX allocates, its random key; more than a page was allocated by whoever used it before.
_UNUSED_BYTES = min(mx.get_peak_memory(), _PAGE)


class _History:
    """What was known of MLX before each fork that led to this process."""

    def __init__(self) -> None:
        self.is_used = False
        self.is_forked_after_use = False

    def before_fork(self) -> None:
        """Look in the parent: in the child a lock of MLX's may be held by a thread that is gone."""
        self.is_used = self.is_used or mx.get_peak_memory() > _UNUSED_BYTES

    def after_fork_in_child(self) -> None:
        self.is_forked_after_use = self.is_forked_after_use or self.is_used


_history = _History()
os.register_at_fork(before=_history.before_fork, after_in_child=_history.after_fork_in_child)


def check_mlx_survived() -> None:
    """Raise ForkedProcessError in a process that was forked from one which had used MLX."""
    if _history.is_forked_after_use:
        raise ForkedProcessError(
            f"process {os.getpid()} was forked from one that had used MLX, whose threads a fork does not copy: an "
            "engine would hang here. Start this process with multiprocessing's 'spawn' method, as in "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        )
