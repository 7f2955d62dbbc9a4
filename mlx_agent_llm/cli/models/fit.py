"""How many agents a memory has room for beside a model's weights, and how fast memory alone lets them decode."""

from __future__ import annotations

from typing import NamedTuple

from mlx_agent_llm.core.kv.memory import GPU_POOL_FRACTION

CONTEXTS = (4096, 16384, 65536)  # tokens of an agent that cards tell of


class Size(NamedTuple):
    """What a model takes, in bytes: its weights, those of them that a token reads, and the KV of a token.

    sequence_bytes: what an agent takes however long it is, for windows and recurrent states.
    """

    weights: int
    read_weights: int
    token_bytes: int
    sequence_bytes: int = 0


def num_agents(size: Size, memory: int, context: int) -> int:
    """How many contexts of this length, with nothing in common, the default pool of a GPU holds."""
    pool = max(memory - size.weights, 0) * GPU_POOL_FRACTION
    return int(pool // (size.token_bytes * context + size.sequence_bytes))


def max_decode_rate(size: Size, bandwidth: float, context: int, num_rows: int = 1) -> float:
    """Tokens a second of so many rows together if nothing but reading weights and KV took time: a bound above."""
    read = size.read_weights + num_rows * (size.token_bytes * context + size.sequence_bytes)
    return num_rows * bandwidth / read
