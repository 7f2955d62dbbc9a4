"""KVState: where the keys, values and states of one request lie, and what of them others can find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class StateSpan(NamedTuple):
    """Tokens [begin, end) of a sequence that take its recurrent layers from one state to the next."""

    begin: int
    end: int
    source: int | None  # the slot that the state before them is in; None at the sequence's begin
    target: int  # the slot that the state after them goes to
    number: int  # of the step's spans, in the order in which they are computed


@dataclass
class KVState:
    """The blocks of one request and the slot of its state; the KV manager changes them."""

    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0  # tokens whose KV is written by the forwards dispatched so far
    num_trusted_tokens: int = 0  # leading ones whose KV a row with finite logits has read: it is finite too
    block_hashes: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they were asked for
    num_published_blocks: int = 0  # leading blocks that other requests can find
    may_publish: bool = True  # not after the content of blocks that it holds was forgotten
    window_table: list[int] = field(default_factory=list)  # of the layers that see a window, in the same places
    num_blocks_behind: int = 0  # leading places of it that hold no block any more
    num_published_window_blocks: int = 0
    state_slot: int | None = None  # of the state after num_computed_tokens
    slot_before_draft: int | None = None  # of the state before a draft that nobody has judged yet
    state_spans: list[StateSpan] = field(default_factory=list)  # of the last chunk
    branch: int = 0  # tokens after which what others computed goes another way
    last_snapshot: bytes | None = None  # the hash of the last state that is only worth keeping until the next one
