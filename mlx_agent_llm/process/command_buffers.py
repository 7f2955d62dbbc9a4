"""How much MLX hands to a CUDA device at once; this module must never import mlx.

MLX closes a graph of operations, and launches it, when the arrays that they read have 1,000 M elements together. An
operation on a pool of keys and values counts all of the pool, whatever it reads, so that with large pools every
attention is a graph of its own (docs/gpu.md says what that costs). The number of operations still bounds a graph.
"""

from __future__ import annotations

import os
import sys

_UNBOUNDED = 1_000_000  # in units of 2^20 elements


def fill() -> None:
    """Let the number of operations alone end a graph, unless the variable is set; MLX reads it at its first launch."""
    if sys.platform == "linux":  # on Metal nobody has measured it
        os.environ.setdefault("MLX_MAX_MB_PER_BUFFER", str(_UNBOUNDED))
