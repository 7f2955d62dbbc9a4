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

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.clean_blocks import BlockCopy, CleanBlocks
from mlx_agent_llm.core.kv.layer_group import LayerGroup
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.kv.pins import Pins
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.core.kv.prefix_sharing import PrefixSharing
from mlx_agent_llm.core.kv.state_slots import StateSlots
from mlx_agent_llm.core.kv.window_blocks import WindowBlocks
from mlx_agent_llm.request import KVState, Request


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
    """What the coming forward has to do beside what it computes: copies before it writes anything."""

    copies: Sequence[BlockCopy] = ()
    window_copies: Sequence[BlockCopy] = ()  # in layers that see a window
    empty_slots: frozenset[int] = frozenset()  # of states that nobody wants any more after it


class KVManager:
    """Matches prefixes, extends and frees block tables; the only user of the pools.

    snapshot_tokens: how often a long prompt's states are kept, where the model has any. What the model's layers share
    of a prefix ends at the last border at which each group of them can go on.
    """

    def __init__(self, sizes: PoolSizes, block_size: int, *, prefix_cache: bool, snapshot_tokens: int = 512) -> None:
        self.pool = BlockPool(sizes.num_blocks)
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self.stats = PrefixStats()
        self.hashes = hashes = PrefixHashes(block_size)
        self._blocks = CleanBlocks(self.pool)
        step = self.num_blocks_for(snapshot_tokens) * block_size if prefix_cache else None
        self.states = StateSlots(sizes.num_slots, step, hashes) if sizes.num_slots else None
        self.windows = None
        if sizes.num_window_blocks:
            self.windows = WindowBlocks(sizes.num_window_blocks, sizes.window, hashes, prefix_cache=prefix_cache)
        self.left_behind: deque[Sequence[bytes]] | None = None  # the hashes of what requests left, where anyone asks
        self.pins = Pins(self.pool, self.windows, self.states, hashes)
        self._groups: list[LayerGroup] = [group for group in (self.windows, self.states) if group is not None]
        self._sharing = PrefixSharing(self.pool, self._blocks, self._groups, hashes, prefix_cache=prefix_cache)

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
            self._publish(request)
            self._sharing.share(request)
        kv = request.kv
        count = self._chunk_length(request, max_new_tokens, may_split_block)
        missing = self.num_blocks_for(kv.num_computed_tokens + count) - len(kv.block_table)
        is_refused = count == 0 or missing > self.pool.num_available or not self._groups_have_room(request, count)
        if is_refused and was_empty:
            self.free(request)
        elif is_at_border and request.num_preemptions == 0:  # what it finds of its own KV after that is no saving
            num_found = _num_prompt_tokens_in(request, start, kv.num_computed_tokens)
            self.stats.count(request, num_found, is_first=was_empty)
        if is_refused:
            return 0 if count == 0 else None
        if missing > 0:
            kv.block_table += self._blocks.take(missing)
        if request.parent is not None:
            self._sharing.copy_partial_block(request, request.parent)
            request.parent = None
        for group in self._groups:
            group.advance(request, count)
        kv.num_computed_tokens += count
        self._publish(request)
        return count

    def take_slot(self, request: Request) -> bool:
        """Count a row's last token as computed where that is all that allocate would do: in most steps of most rows.

        False, and nothing is changed, where a block begins or ends, or is to be published, or where more is left.
        """
        kv = request.kv
        first = kv.num_published_blocks * self.block_size
        is_within = first < kv.num_computed_tokens < first + self.block_size - 1
        if not is_within or self._groups or len(kv.block_table) <= kv.num_published_blocks:
            return False
        if request.num_tokens != kv.num_computed_tokens + 1 or request.draft.token_ids or request.grammar is not None:
            return False
        kv.num_computed_tokens += 1
        return True

    def settle(self, request: Request, num_drafted: int, num_right: int) -> None:
        """Count what was wrong of a request's last draft as not computed: the next tokens get its slots.

        Of what nobody read yet nothing was published. A state is one after all of the draft or before it, so there a
        draft that was right in part is computed again as far as it was.
        """
        if self.states is not None:
            self.states.settle(request.kv, is_right=num_right == num_drafted)
            num_right = num_right if num_right == num_drafted else 0
        request.kv.num_computed_tokens -= num_drafted - num_right

    def free(self, request: Request) -> None:
        """Give back every block of the request; what was computed stays findable until it is evicted."""
        self._publish(request)
        if self.left_behind is not None and request.kv.num_published_blocks:
            self.left_behind.append(request.kv.block_hashes[: request.kv.num_published_blocks])
        self._release(request)

    def discard(self, request: Request) -> None:
        """Give back every block of a request whose allocation broke, and forget what was to be copied to them."""
        self._blocks.give_up(set(request.kv.block_table))
        self._release(request)

    def withdraw(self, requests: Sequence[Request], running: Sequence[Request]) -> None:
        """Let nobody find what requests whose logits are not finite have read or computed, nor what followed from it.

        Since when it was wrong nobody knows: all is given up but what rows with finite logits have read, as far as
        those run that they were of. Who holds a block that was given up publishes no more.
        """
        trusted = {block_id for request in running for block_id in self._trusted_blocks(request)}
        doubted = {block_id for request in requests for block_id in self._held_or_left(request)} - trusted
        doubted |= self.pool.withdraw(doubted)
        self._blocks.spoil(doubted)
        for group in self._groups:
            group.withdraw()
        self.pins.drop_lost()
        for request in running:
            if not doubted.isdisjoint(request.kv.block_table):
                request.kv.may_publish = False

    def end_step(self) -> StepChanges:
        """Hand over what the coming forward needs, once."""
        return StepChanges(
            self._blocks.take_copies(),
            [] if self.windows is None else self.windows.end_step(),
            frozenset() if self.states is None else self.states.end_step(),
        )

    def reset_prefix_cache(self, running: Iterable[Request]) -> None:
        """Forget the content of every block; what the requests that hold blocks compute from now on stays theirs."""
        self.forget()
        for request in running:
            request.kv.may_publish = False

    def forget(self) -> None:
        """Forget the content of every block and every snapshot."""
        for pool in self._pools:
            pool.forget()
        self.pins.drop_lost()

    def drop_snapshots(self) -> None:
        """Forget states that nobody holds; their memory is free after the next forward. Blocks stay findable."""
        if self.states is not None:
            self.states.pool.forget_cached()

    def check_integrity(self, *, is_idle: bool) -> None:
        """Assert that the pools are whole and, when nothing is open, that nothing of them is held."""
        for pool in self._pools:
            pool.check_integrity()
            assert not is_idle or pool.num_used == self.pins.num_held(pool), "blocks or slots are held by nobody"

    def num_missing_blocks(self, request: Request) -> int:
        """Available blocks that computing all of its tokens would take; those it can share are not counted."""
        if request.parent is not None and not self._groups:
            return 1
        index = len(request.kv.block_table)
        missing = self.num_blocks_for(request.num_tokens) - index
        while self.prefix_cache and missing > 0 and self.hashes.is_known(request, index):
            block_id = self.pool.find(self.hashes.of(request, index))
            if block_id is None or not self.pool.is_used(block_id):
                break
            missing, index = missing - 1, index + 1
        return max(missing, 0)  # blocks of a draft that was wrong may be left over

    def fits_beside_pins(self, request: Request, num_tokens: int) -> bool:
        """Whether the pool has as many blocks as the request takes in the end, beside those that are pinned."""
        num_blocks, num_pinned = self.num_blocks_for(num_tokens), len(self.pins.hashes)
        return num_blocks - self.pins.num_shared(request, num_blocks) <= self.pool.num_blocks - num_pinned

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold num_tokens."""
        return -(-num_tokens // self.block_size)

    @property
    def _pools(self) -> list[BlockPool]:
        return [self.pool, *(group.pool for group in self._groups)]

    def _groups_have_room(self, request: Request, count: int) -> bool:
        return all(group.has_room(request, count) for group in self._groups)

    def _chunk_length(self, request: Request, max_new_tokens: int, may_split_block: bool) -> int:
        """All that is left if it fits, else up to a block's border, so that the next chunk can match there."""
        start = request.kv.num_computed_tokens
        left = request.num_ready_tokens - start
        if start < request.read_from:
            left = min(left, request.read_from - start)
        if left <= max_new_tokens:
            return left
        aligned = (start + max_new_tokens) // self.block_size * self.block_size - start
        return aligned if aligned > 0 else max_new_tokens * may_split_block

    def _publish(self, request: Request) -> None:
        kv = request.kv
        for group in self._groups:
            group.publish(request)
        if not self.prefix_cache or not kv.may_publish:
            return
        for index in range(kv.num_published_blocks, kv.num_computed_tokens // self.block_size):
            if not self.hashes.is_known(request, index):
                break
            block_hash = self.hashes.of(request, index)
            self.pool.set_hash(kv.block_table[index], block_hash, self.hashes.before(request, index))
            kv.num_published_blocks = index + 1

    def _release(self, request: Request) -> None:
        self.pool.release(request.kv.block_table)
        for group in self._groups:
            group.release(request.kv)
        request.kv = KVState(block_hashes=request.kv.block_hashes)

    def _trusted_blocks(self, request: Request) -> list[int]:
        return request.kv.block_table[: request.kv.num_trusted_tokens // self.block_size]

    def _held_or_left(self, request: Request) -> list[int]:
        """The blocks that a request holds, or that it left where they can be found when it ended or was preempted."""
        found = (self.pool.find(block_hash) for block_hash in request.kv.block_hashes)
        return [*request.kv.block_table, *(block_id for block_id in found if block_id is not None)]


def _num_prompt_tokens_in(request: Request, start: int, end: int) -> int:
    """How many of the tokens [start, end) belong to the prompt."""
    return max(min(end, request.num_prompt_tokens) - start, 0)
