"""Whether this process was forked from one that had used MLX: its threads are gone then, and every evaluation hangs.

The package imports this module first, to see every fork; it must never import mlx.
"""

from __future__ import annotations

import os
import sys

from mlx_agent_llm.errors import ForkedProcessError

# What importing MLX and mlx-lm allocates, a random key among it, is less; more was allocated by whoever used it.
_UNUSED_BYTES = 16 * 1024


class _History:
    """What was known of MLX before each fork that led to this process."""

    def __init__(self) -> None:
        self.is_used = False
        self.is_forked_after_use = False

    def before_fork(self) -> None:
        """Look in the parent: in the child a lock of MLX's may be held by a thread that is gone."""
        mx = sys.modules.get("mlx.core")
        self.is_used = self.is_used or (mx is not None and mx.get_peak_memory() > _UNUSED_BYTES)

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
