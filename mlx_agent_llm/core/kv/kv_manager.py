"""Block tables: which blocks hold the tokens of a request. Knows the pool, not the schedule.

Blocks are shared in two ways: by content, through the hashes of full blocks, and from parent to child, by reference.

A block becomes findable when the forward that fills it is scheduled, not when that forward is done: forwards run in the
order they are dispatched, and within one forward every layer writes all keys and values before it attends. So requests
that arrive together share a prefix as well as requests that come later (invariant 7).

Keys and values that are not finite spoil every row that reads them, of whatever request. Nothing looks at them: they
show in the logits of such a row, when others may have shared their blocks already. These fail the same way. The
reference kernels read a block's last slots too before they are written, so a spoiled block is cleaned for its next
owner.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.state_slots import StateSlots
from mlx_agent_llm.request import KVState, Request


class BlockCopy(NamedTuple):
    """A block whose content goes to another one before the next forward writes anything."""

    source: int
    target: int


@dataclass
class PrefixStats:
    """Prompt tokens that were looked up and that were found."""

    query_tokens: int = 0
    hit_tokens: int = 0

    def count(self, request: Request, num_found: int, *, is_first: bool) -> None:
        """Count the tokens found for a request, and its prompt when this is its first allocation."""
        request.num_cached_tokens += num_found
        self.hit_tokens += num_found
        if is_first:
            self.query_tokens += request.num_prompt_tokens


class StepChanges(NamedTuple):
    """What the coming forward has to do beside what it computes."""

    copies: list[BlockCopy]
    empty_slots: frozenset[int]  # of states that nobody wants any more after it


class KVManager:
    """Matches prefixes, extends and frees block tables; the only user of the pools of blocks and of slots.

    num_slots: for states, 0 where the model has none. snapshot_tokens: how often a long prompt's states are kept.
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix_cache: bool, num_slots: int = 0, snapshot_tokens: int = 512
    ) -> None:
        self.pool = BlockPool(num_blocks)
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        step = self.num_blocks_for(snapshot_tokens) * block_size if prefix_cache else None
        self.states = StateSlots(num_slots, block_size, step, self._block_hash) if num_slots else None
        self.stats = PrefixStats()
        self._copies: list[BlockCopy] = []
        self._spoiled: set[int] = set()  # blocks that may hold what is not finite
        self._clean_block = num_blocks  # the padding's, which no request gets

    def allocate(self, request: Request, max_new_tokens: int, *, may_split_block: bool = True) -> int | None:
        """Extend the request's table by what it shares and by room for up to max_new_tokens further tokens.

        A request with a parent shares the parent's blocks, which have to hold all its tokens but the last one, and lets
        go of the parent; the others share what matches their prefix.

        Returns how many tokens the coming forward computes for it: 0 when none is ready, or when they are too few to
        reach a block's border and may_split_block is False; None when the pool has no room. In both cases a request
        that held no block still holds none.
        """
        was_empty, start = not request.kv.block_table, request.kv.num_computed_tokens
        is_at_border = start % self.block_size == 0  # only there is a block next that could be shared
        if is_at_border:
            self._publish_state(request)
            self._share(request)
        kv = request.kv
        count = self._chunk_length(request, max_new_tokens, may_split_block)
        missing = self.num_blocks_for(kv.num_computed_tokens + count) - len(kv.block_table)
        is_refused = count == 0 or missing > self.pool.num_available or not self._has_room_for_state(request)
        if is_refused and was_empty:
            self.free(request)
        elif is_at_border and request.num_preemptions == 0:  # what it finds of its own KV after that is no saving
            num_found = _num_prompt_tokens_in(request, start, kv.num_computed_tokens)
            self.stats.count(request, num_found, is_first=was_empty)
        if is_refused:
            return 0 if count == 0 else None
        if missing > 0:
            kv.block_table += self._take_clean(missing)
        if request.parent is not None:
            self._copy_partial_block(request, request.parent)
            request.parent = None
        if self.states is not None:
            self.states.advance(request, count)
        kv.num_computed_tokens += count
        self._publish_full_blocks(request)
        self._publish_state(request)
        return count

    def free(self, request: Request) -> None:
        """Give back every block of the request; what was computed stays findable until it is evicted."""
        self._publish_full_blocks(request)
        self._publish_state(request)
        self._release(request)

    def discard(self, request: Request) -> None:
        """Give back every block of a request whose allocation broke, and forget what was to be copied to them."""
        held = set(request.kv.block_table)
        self._spoiled |= {target for _, target in self._copies if target in held}
        self._drop_copies_to(held)
        self._release(request)

    def withdraw(self, requests: Sequence[Request], running: Sequence[Request]) -> None:
        """Let nobody find what requests whose logits are not finite have read or computed, nor what followed from it.

        Since when it was wrong nobody knows: all is given up but what rows with finite logits have read, as far as
        those run that they were of. Who holds a block that was given up publishes no more.
        """
        trusted = {block_id for request in running for block_id in self._trusted_blocks(request)}
        doubted = {block_id for request in requests for block_id in self._held_or_left(request)} - trusted
        doubted |= self.pool.withdraw(doubted)
        if self.states is not None:
            self.states.pool.forget()
        self._spoiled |= doubted
        for request in running:
            if not doubted.isdisjoint(request.kv.block_table):
                request.kv.may_publish = False

    def end_step(self) -> StepChanges:
        """Hand over what the coming forward needs, once."""
        copies, self._copies = self._copies, []
        return StepChanges(copies, frozenset() if self.states is None else self.states.end_step())

    def reset_prefix_cache(self, running: Iterable[Request]) -> None:
        """Forget the content of every block; what the requests that hold blocks compute from now on stays theirs."""
        self.forget()
        for request in running:
            request.kv.may_publish = False

    def forget(self) -> None:
        """Forget the content of every block and every snapshot."""
        self.pool.forget()
        if self.states is not None:
            self.states.pool.forget()

    def check_integrity(self, *, is_idle: bool) -> None:
        """Assert that the pools are whole and, when nothing is open, that nothing of them is held."""
        for pool in (self.pool,) if self.states is None else (self.pool, self.states.pool):
            pool.check_integrity()
            assert not is_idle or pool.num_used == 0, "blocks or slots are held by nobody"

    def num_missing_blocks(self, request: Request) -> int:
        """Available blocks that computing all of its tokens would take; those it can share are not counted."""
        if request.parent is not None and self.states is None:
            return 1
        index = len(request.kv.block_table)
        missing = self.num_blocks_for(request.num_tokens) - index
        while self.prefix_cache and missing > 0 and self._is_known(request, index):
            block_id = self.pool.find(self._block_hash(request, index))
            if block_id is None or not self.pool.is_used(block_id):
                break
            missing, index = missing - 1, index + 1
        return missing

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold num_tokens."""
        return -(-num_tokens // self.block_size)

    def _share(self, request: Request) -> None:
        """Extend the table by what is already there: the parent's blocks, or those that match the prefix.

        A parent's state is that of more tokens than the child has to share: it goes on from a snapshot of the parent's.
        """
        if self.states is not None:
            request.parent = None
        if request.parent is not None:
            self._share_with_parent(request, request.parent)
        elif self.prefix_cache:
            self._adopt_cached_blocks(request)

    def _share_with_parent(self, request: Request, parent: Request) -> None:
        """Take a reference to each block of the parent that the child will never write: the full ones."""
        assert request.cache_key == parent.cache_key, "the KV of parent and child differs"
        assert not request.kv.block_table and parent.kv.num_computed_tokens >= request.num_tokens - 1
        num_full = (request.num_tokens - 1) // self.block_size
        block_table = parent.kv.block_table[:num_full]
        for block_id in block_table:
            self.pool.share(block_id)
        request.kv = KVState(
            block_table=block_table,
            num_computed_tokens=request.num_tokens - 1,
            block_hashes=parent.kv.block_hashes[:num_full],
            num_published_blocks=min(parent.kv.num_published_blocks, num_full),
            may_publish=parent.kv.may_publish,
        )

    def _take_clean(self, count: int) -> list[int]:
        """Allocate blocks whose content is finite when the forward reads them."""
        block_ids = self.pool.allocate(count)
        if self._spoiled:
            self._copies += [BlockCopy(self._clean_block, one) for one in block_ids if one in self._spoiled]
            self._spoiled.difference_update(block_ids)
        return block_ids

    def _copy_partial_block(self, request: Request, parent: Request) -> None:
        """Both go on writing the block that holds their next token, so the child's is a copy."""
        index, num_filled = divmod(request.kv.num_computed_tokens, self.block_size)
        if num_filled:
            target = request.kv.block_table[index]
            self._drop_copies_to({target})
            self._copies.append(BlockCopy(parent.kv.block_table[index], target))

    def _drop_copies_to(self, block_ids: Set[int]) -> None:
        self._copies = [copy for copy in self._copies if copy.target not in block_ids]

    def _adopt_cached_blocks(self, request: Request) -> None:
        """Share every next block that is there, up to a state that is; at least one token is left to compute."""
        found = self._find_cached_blocks(request)
        if self.states is not None:
            found = found[: self.states.adopt(request, len(found))]
        for block_id in found:
            self.pool.share(block_id)
        request.kv.block_table += found
        request.kv.num_computed_tokens += len(found) * self.block_size

    def _find_cached_blocks(self, request: Request) -> list[int]:
        found: list[int] = []
        first = request.kv.num_computed_tokens // self.block_size
        for index in range(first, (request.num_tokens - 1) // self.block_size):
            block_id = self.pool.find(self._block_hash(request, index)) if self._is_known(request, index) else None
            if block_id is None:
                break
            found.append(block_id)
        return found

    def _has_room_for_state(self, request: Request) -> bool:
        return self.states is None or self.states.has_room(request)

    def _publish_state(self, request: Request) -> None:
        if self.states is not None:
            self.states.publish(request)

    def _chunk_length(self, request: Request, max_new_tokens: int, may_split_block: bool) -> int:
        """All that is left if it fits, else up to a block's border, so that the next chunk can match there."""
        start = request.kv.num_computed_tokens
        left = request.num_ready_tokens - start
        if left <= max_new_tokens:
            return left
        aligned = (start + max_new_tokens) // self.block_size * self.block_size - start
        return aligned if aligned > 0 else max_new_tokens * may_split_block

    def _publish_full_blocks(self, request: Request) -> None:
        kv = request.kv
        if not self.prefix_cache or not kv.may_publish:
            return
        for index in range(kv.num_published_blocks, kv.num_computed_tokens // self.block_size):
            if not self._is_known(request, index):
                break
            block_hash = self._block_hash(request, index)
            self.pool.set_hash(kv.block_table[index], block_hash, self._hash_before(request, index))
            kv.num_published_blocks = index + 1

    def _release(self, request: Request) -> None:
        self.pool.release(request.kv.block_table)
        if self.states is not None:
            self.states.release(request.kv)
        request.kv = KVState(block_hashes=request.kv.block_hashes)

    def _trusted_blocks(self, request: Request) -> list[int]:
        return request.kv.block_table[: request.kv.num_trusted_tokens // self.block_size]

    def _held_or_left(self, request: Request) -> list[int]:
        """The blocks that a request holds, or that it left where they can be found when it ended or was preempted."""
        found = (self.pool.find(block_hash) for block_hash in request.kv.block_hashes)
        return [*request.kv.block_table, *(block_id for block_id in found if block_id is not None)]

    def _is_known(self, request: Request, index: int) -> bool:
        """Whether every token of the block was read; one sampled on the device may still be in flight."""
        return (index + 1) * self.block_size <= len(request.token_ids)

    def _block_hash(self, request: Request, index: int) -> bytes:
        """The hash of block `index`: of its tokens and, through the hash before it, of everything before them."""
        hashes = request.kv.block_hashes
        while len(hashes) <= index:
            start = len(hashes) * self.block_size
            before = self._hash_before(request, len(hashes))
            hashes.append(_hash_block(before, request.token_ids[start : start + self.block_size]))
        return hashes[index]

    def _hash_before(self, request: Request, index: int) -> bytes:
        """What block `index` follows: the block before it, or else what sets the request apart."""
        return request.kv.block_hashes[index - 1] if index else request.cache_key


def _num_prompt_tokens_in(request: Request, start: int, end: int) -> int:
    """How many of the tokens [start, end) belong to the prompt."""
    return max(min(end, request.num_prompt_tokens) - start, 0)


def _hash_block(before: bytes, token_ids: Sequence[int]) -> bytes:
    """16 bytes that no hash of anything else, such as a salt, can be made equal to: `person` tells what they are of."""
    return hashlib.blake2b(array("q", token_ids).tobytes(), digest_size=16, key=before, person=b"kv_block").digest()
