"""The blocks of the KV pool: who holds them, what they contain, which goes next.

Every block is in one of three states: free (holds nothing worth keeping), cached (nobody uses it, but its content may
be found by hash) or used (ref_count > 0). free + cached + used = total after every operation. Knows no requests.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Block:
    """One block of the pool; block_hash names the tokens whose KV it holds, once it is full, and all before them."""

    block_id: int
    ref_count: int = 0
    block_hash: bytes | None = None
    hash_before: bytes = b""  # of the block before it, whose KV its own depends on


class BlockPool:
    """Allocation, sharing by reference, lookup by content hash and least-recently-used eviction, all O(1)."""

    def __init__(self, num_blocks: int) -> None:
        self._blocks = [Block(block_id) for block_id in range(num_blocks)]
        self._free = deque(range(num_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._by_hash: dict[bytes, int] = {}
        self.num_shared = 0  # blocks with more than one reference
        self.num_evictions = 0  # cached blocks whose content was given up for another one

    @property
    def num_blocks(self) -> int:
        """All blocks."""
        return len(self._blocks)

    @property
    def num_free(self) -> int:
        """Blocks that hold nothing worth keeping."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody uses and whose content can still be found."""
        return len(self._cached)

    @property
    def num_findable(self) -> int:
        """Blocks whose content can be found, used or not."""
        return len(self._by_hash)

    @property
    def num_used(self) -> int:
        """Blocks that some request holds."""
        return self.num_blocks - self.num_available

    @property
    def num_available(self) -> int:
        """Blocks that allocate can hand out."""
        return len(self._free) + len(self._cached)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, at most num_available, evicting the least recently used cached ones if need be."""
        assert count <= self.num_available, f"asked for {count} of {self.num_available} blocks"
        return [self._take() for _ in range(count)]

    def find(self, block_hash: bytes) -> int | None:
        """The block that holds this content, if any."""
        return self._by_hash.get(block_hash)

    def is_used(self, block_id: int) -> bool:
        """Whether some request holds the block."""
        return self._blocks[block_id].ref_count > 0

    def is_shared(self, block_id: int) -> bool:
        """Whether there is more than one reference to the block."""
        return self._blocks[block_id].ref_count > 1

    def has_hash(self, block_id: int) -> bool:
        """Whether the block can be found."""
        return self._blocks[block_id].block_hash is not None

    def free_ids(self) -> frozenset[int]:
        """The blocks that hold nothing worth keeping."""
        return frozenset(self._free)

    def share(self, block_id: int) -> None:
        """Take one more reference to a used or cached block."""
        block = self._blocks[block_id]
        assert block.ref_count > 0 or block_id in self._cached, f"block {block_id} is free"
        self._cached.pop(block_id, None)
        block.ref_count += 1
        self.num_shared += block.ref_count == 2

    def release(self, block_ids: Iterable[int]) -> None:
        """Give back one reference to each; blocks that nobody holds are kept as cached when they have a hash.

        Called with a block table it releases the end first, so that the start of a prefix is evicted last.
        """
        for block_id in reversed(list(block_ids)):
            block = self._blocks[block_id]
            assert block.ref_count > 0, f"block {block_id} was released twice"
            block.ref_count -= 1
            self.num_shared -= block.ref_count == 1
            if block.ref_count == 0:
                self._retire(block)

    def set_hash(self, block_id: int, block_hash: bytes, hash_before: bytes) -> None:
        """Make a used, full block findable; the first block with this content stays the one that is found."""
        block = self._blocks[block_id]
        assert block.ref_count > 0, f"block {block_id} is not in use"
        if block.block_hash is None and block_hash not in self._by_hash:
            block.block_hash, block.hash_before = block_hash, hash_before
            self._by_hash[block_hash] = block_id

    def withdraw(self, block_ids: Iterable[int]) -> set[int]:
        """Drop the hashes of these blocks and of all that come after them in a sequence; the blocks that had one."""
        following = defaultdict[bytes, list[int]](list)
        for block in self._blocks:
            if block.block_hash is not None:
                following[block.hash_before].append(block.block_id)
        withdrawn: set[int] = set()
        left = list(block_ids)
        while left:
            block = self._blocks[left.pop()]
            if block.block_hash is not None:
                left += following[block.block_hash]
                withdrawn.add(block.block_id)
                self._forget_content(block)
                if block.ref_count == 0:
                    del self._cached[block.block_id]
                    self._free.append(block.block_id)
        return withdrawn

    def drop_cached(self, block_hash: bytes) -> None:
        """Make the block with this content free, if there is one that nobody uses."""
        block_id = self._by_hash.get(block_hash)
        if block_id is not None and block_id in self._cached:
            del self._cached[block_id]
            self._forget_content(self._blocks[block_id])
            self._free.append(block_id)

    def forget_cached(self) -> None:
        """Make every cached block free; used ones stay findable."""
        for block_id in self._cached:
            self._forget_content(self._blocks[block_id])
        self._free.extend(self._cached)
        self._cached.clear()

    def forget(self) -> None:
        """Drop every hash: cached blocks become free, used ones are no longer found."""
        self._by_hash.clear()
        for block in self._blocks:
            block.block_hash = None
        self._free.extend(self._cached)
        self._cached.clear()

    def check_integrity(self) -> None:
        """Assert that every block is in exactly one state and that the hash table agrees with the blocks."""
        free, cached = set(self._free), set(self._cached)
        used = {block.block_id for block in self._blocks if block.ref_count > 0}
        assert len(free) == len(self._free), "a block is free twice"
        assert not (free & cached or free & used or cached & used), "a block is in two states"
        assert len(free) + len(cached) + len(used) == self.num_blocks, "a block is lost"
        assert self.num_shared == sum(block.ref_count > 1 for block in self._blocks), "num_shared is off"
        assert all(block.ref_count >= 0 for block in self._blocks), "a negative reference count"
        assert all(self._blocks[block_id].block_hash is None for block_id in free), "a free block has a hash"
        hashed = {block.block_hash: block.block_id for block in self._blocks if block.block_hash is not None}
        assert hashed == self._by_hash, "the hash table and the blocks disagree"
        assert all(self._blocks[block_id].block_hash is not None for block_id in cached), (
            "a cached block without a hash"
        )

    def _take(self) -> int:
        block_id = self._free.popleft() if self._free else self._evict()
        self._blocks[block_id].ref_count = 1
        return block_id

    def _evict(self) -> int:
        block_id, _ = self._cached.popitem(last=False)
        self._forget_content(self._blocks[block_id])
        self.num_evictions += 1
        return block_id

    def _forget_content(self, block: Block) -> None:
        assert block.block_hash is not None, f"block {block.block_id} has no hash"
        del self._by_hash[block.block_hash]
        block.block_hash = None

    def _retire(self, block: Block) -> None:
        if block.block_hash is None:
            self._free.append(block.block_id)
        else:
            self._cached[block.block_id] = None
