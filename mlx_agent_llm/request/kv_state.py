"""KVState: where the keys and values of one request lie in the pool, and what of them others can find."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class KVState:
    """The blocks of one request; the KV manager changes them."""

    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0  # tokens whose KV is written by the forwards dispatched so far
    num_trusted_tokens: int = 0  # leading ones whose KV a row with finite logits has read: it is finite too
    block_hashes: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they were asked for
    num_published_blocks: int = 0  # leading blocks that other requests can find
    may_publish: bool = True  # not after the content of blocks that it holds was forgotten
