"""The slots that hold states of recurrent layers: one for each running request, and snapshots that others can find.

A slot is shared and found like a block: by reference, and by the hash of the tokens that led to its state. A state that
somebody else could still read is never written over: the next one goes to another slot, so that a snapshot, a prefix
hit and a fork cost a slot and no copy, and so does a draft, beside whose state the one before it stays. Snapshots are
taken at block borders, where attention layers can go on too:

- every snapshot_tokens of a sequence, for whoever begins alike;
- where a prompt parts from what others computed: the next one that parts there finds it;
- where messages of a chat end, so that chats that begin with the same ones go on from there;
- at the last border of a prompt, and at the last one of what is generated so far, instead of the one before it.

Knows no arrays and no schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.request import KVState, Request, StateSpan

_BLOCKS_OF_A_MESSAGE = 4  # at least, from one end to the next: fewer are not worth a slot, and a call of their own


class StateSlots:
    """Hands out slots and keeps snapshots, none where snapshot_tokens is None."""

    def __init__(self, num_slots: int, snapshot_tokens: int | None, hashes: PrefixHashes) -> None:
        self.pool = BlockPool(num_slots)
        self._block_size = hashes.block_size
        self._snapshot_tokens = snapshot_tokens
        self._hashes = hashes
        self._held: list[int] = []  # what the coming forward reads, and must not write for others meanwhile
        self._num_spans = 0  # of the coming forward so far
        self._superseded: list[bytes] = []  # snapshots that are worth nothing after the coming forward
        self._free = self.pool.free_ids()

    def agrees(self, request: Request, num_blocks: int) -> bool:
        """Whether there is a snapshot after the first num_blocks blocks."""
        return self.pool.find(self._hashes.of(request, num_blocks - 1)) is not None

    def adopt(self, request: Request, num_blocks: int, num_found: int) -> None:
        """Go on from the snapshot after num_blocks blocks."""
        kv = request.kv
        if num_blocks < num_found:
            kv.branch = num_found * self._block_size
        if num_blocks * self._block_size > kv.num_computed_tokens:
            slot = self.pool.find(self._hashes.of(request, num_blocks - 1))
            assert slot is not None, "adopted without a snapshot"
            self.pool.share(slot)
            self.release(kv)
            kv.state_slot, kv.last_snapshot = slot, None

    def has_room(self, request: Request, count: int) -> bool:
        """Whether the state after the request's next tokens has a place."""
        slot = request.kv.state_slot
        if request.draft.token_ids:
            return self.pool.num_available > 1
        return self.pool.num_available > 0 or (slot is not None and not self.pool.is_shared(slot))

    def advance(self, request: Request, count: int) -> None:
        """Give the next `count` tokens of a request their spans, from border to border, and publish what is between.

        A draft is a span of its own: the state before it is kept until it is judged.
        """
        kv, num_drafted = request.kv, len(request.draft.token_ids)
        begin, end = kv.num_computed_tokens, kv.num_computed_tokens + count - num_drafted
        kv.state_spans = []
        for border in self._borders(request, begin, end):
            if self.pool.num_available < 2 + bool(num_drafted):  # for the state after all of them, and after the draft
                break
            self._extend(kv, begin, border)
            self._publish(request, border)
            begin = border
        self._extend(kv, begin, end)
        if num_drafted:
            kv.slot_before_draft = kv.state_slot
            (kv.state_slot,) = self.pool.allocate(1)
            self._add_span(kv, end, end + num_drafted, kv.slot_before_draft)

    def settle(self, kv: KVState, *, is_right: bool) -> None:
        """Go on from the state after a draft that was right, or else from the one before it."""
        before, after = kv.slot_before_draft, kv.state_slot
        assert before is not None and after is not None, "no draft is to be judged"
        kv.slot_before_draft = None
        kv.state_slot, left = (after, before) if is_right else (before, after)
        self.pool.release([left])

    def publish(self, request: Request) -> None:
        """Make the state of a request findable if it is at a border."""
        border = request.kv.num_computed_tokens
        is_known = border <= len(request.token_ids)  # the last token may be in flight
        if request.kv.state_slot is not None and is_known and border % self._block_size == 0:
            self._publish(request, border)

    def release(self, kv: KVState) -> None:
        """Give a request's slots back; a snapshot stays findable."""
        self.pool.release(slot for slot in (kv.state_slot, kv.slot_before_draft) if slot is not None)
        kv.state_slot = kv.slot_before_draft = None

    def withdraw(self) -> None:
        """Let nobody find any snapshot."""
        self.pool.forget()

    def end_step(self) -> frozenset[int]:
        """Let go of what only the coming forward needs; the slots that hold nothing any more since the last call."""
        self.pool.release(self._held)
        for block_hash in self._superseded:
            self.pool.drop_cached(block_hash)
        self._held, self._superseded, self._num_spans = [], [], 0
        were_free, self._free = self._free, self.pool.free_ids()
        return self._free - were_free

    def _extend(self, kv: KVState, begin: int, end: int) -> None:
        """Add a span; its state goes to the slot of the one before unless somebody else could read that."""
        source = kv.state_slot
        if source is None or not self._may_write(source):
            (kv.state_slot,) = self.pool.allocate(1)
            self._held += [] if source is None else [source]
        self._add_span(kv, begin, end, source)

    def _add_span(self, kv: KVState, begin: int, end: int, source: int | None) -> None:
        assert kv.state_slot is not None
        kv.state_spans.append(StateSpan(begin, end, source, kv.state_slot, self._num_spans))
        self._num_spans += 1

    def _may_write(self, slot: int) -> bool:
        """Whether nobody else reads the slot; a snapshot is given up where there is no room for another state."""
        if self.pool.is_shared(slot):
            return False
        if self.pool.num_available == 0:
            self.pool.withdraw([slot])
        return not self.pool.has_hash(slot)

    def _publish(self, request: Request, border: int) -> None:
        """Make the running state, which is the one after `border` tokens, findable, and the last one no longer."""
        kv, slot = request.kv, request.kv.state_slot
        assert slot is not None
        if self._snapshot_tokens is None or not kv.may_publish:
            return
        block_hash = self._hashes.of(request, border // self._block_size - 1)
        if self.pool.find(block_hash) is not None or self.pool.has_hash(slot):
            return
        self.pool.set_hash(slot, block_hash, b"")
        if kv.last_snapshot is not None:
            self._superseded.append(kv.last_snapshot)
        kv.last_snapshot = None if border in self._lasting_borders(request, border - 1, border) else block_hash

    def _borders(self, request: Request, begin: int, end: int) -> Sequence[int]:
        """After how many tokens, more than begin and less than end, snapshots are taken."""
        if end - begin == 1 or self._snapshot_tokens is None or not request.kv.may_publish:
            return ()
        last = (end - 1) // self._block_size * self._block_size
        return sorted({*self._lasting_borders(request, begin, end - 1), *([last] if last > begin else [])})

    def _lasting_borders(self, request: Request, after: int, last: int) -> set[int]:
        """Those in (after, last] that are worth keeping beside later ones."""
        assert self._snapshot_tokens is not None
        step = self._snapshot_tokens
        prompt_end = (request.num_prompt_tokens - 1) // self._block_size * self._block_size
        singles = (prompt_end, request.kv.branch, *self._message_borders(request))
        regular = range((after // step + 1) * step, last + 1, step)
        return {border for border in singles if after < border <= last} | set(regular)

    def _message_borders(self, request: Request) -> list[int]:
        """The last borders in messages, as far as they are apart."""
        borders: list[int] = []
        for end in request.message_ends:
            border = end // self._block_size * self._block_size
            if border - (borders[-1] if borders else 0) >= _BLOCKS_OF_A_MESSAGE * self._block_size:
                borders.append(border)
        return borders
