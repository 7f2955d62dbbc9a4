"""How much MLX hands to a GPU at once; this module must never import mlx.

MLX closes a graph of operations (CUDA) or a command buffer (Metal), and starts it, when it has some 20 to 50
operations, or when the arrays that these touch have so many elements together: 1,000 times 2^20 on CUDA, 40 or 50 times
2^20 on Metal. An operation on a pool of keys and values counts all of the pool, whatever it reads, so that with large
pools every attention ends one, and on Metal every few products do too, by their weights (docs/gpu.md says what that
costs). Pools and weights are in memory either way: what a command buffer holds on to besides, until it is done, are the
results within it, and their number the bound on operations bounds.
"""

from __future__ import annotations

import os
import sys

_UNBOUNDED = 1_000_000  # in units of 2^20 elements


def fill() -> None:
    """Let the number of operations alone end a graph, unless the variable is set; MLX reads it at its first launch."""
    if sys.platform in ("linux", "darwin"):
        os.environ.setdefault("MLX_MAX_MB_PER_BUFFER", str(_UNBOUNDED))
