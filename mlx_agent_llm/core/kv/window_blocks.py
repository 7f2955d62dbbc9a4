"""The blocks of layers that see a window: a request holds those that its next token sees, and gives back the others.

Its table has the same places as that of the layers that see everything, so a token's block stands where its position
says; what is behind the window is only a number there. Blocks that were given back stay findable until they are taken
for something else: a prefix can be gone on from wherever the window's blocks before it are still there.
"""

from __future__ import annotations

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.clean_blocks import BlockCopy, CleanBlocks
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.request import KVState, Request


class WindowBlocks:
    """The tables of layers that see `window` tokens at most, and the pool behind them."""

    def __init__(self, num_blocks: int, window: int, hashes: PrefixHashes, *, prefix_cache: bool) -> None:
        self.pool = BlockPool(num_blocks)
        self._blocks = CleanBlocks(self.pool)
        self._window = window
        self._hashes = hashes
        self._block_size = hashes.block_size
        self._prefix_cache = prefix_cache
        self._behind: list[int] = []  # that the coming forward sees and none after it

    def agrees(self, request: Request, num_blocks: int) -> bool:
        """Whether every block is there that the token after num_blocks blocks sees."""
        seen = [index for index in self.seen_after(num_blocks) if index >= len(request.kv.window_table)]
        return all(self.pool.find(self._hashes.of(request, index)) is not None for index in reversed(seen))

    def seen_after(self, num_blocks: int) -> range:
        """The blocks that the token after num_blocks blocks sees."""
        return range(self._first_seen(num_blocks * self._block_size), num_blocks)

    def adopt(self, request: Request, num_blocks: int, num_found: int) -> None:
        """Share the blocks that the token after num_blocks blocks sees."""
        kv = request.kv
        first = self._first_seen(num_blocks * self._block_size)
        for index in range(len(kv.window_table), num_blocks):
            block_id = self.pool.find(self._hashes.of(request, index)) if index >= first else None
            if block_id is not None:
                self.pool.share(block_id)
            kv.window_table.append(self.pool.num_blocks if block_id is None else block_id)
        self.pool.release(self._leave_behind(kv, first))
        kv.num_published_window_blocks = max(kv.num_published_window_blocks, num_blocks)

    def has_room(self, request: Request, count: int) -> bool:
        """Whether there are blocks for the next `count` tokens."""
        return self._num_missing(request.kv, count) <= self.pool.num_available

    def advance(self, request: Request, count: int) -> None:
        """Take blocks for the next `count` tokens; what none after them sees is given back after the forward."""
        kv = request.kv
        end = kv.num_computed_tokens + count
        missing = self._num_missing(kv, count)
        kv.window_table += self._blocks.take(missing) if missing > 0 else []
        self._publish(request, end)
        # The token after those that are known may be the next one, when the draft is wrong.
        self._behind += self._leave_behind(kv, self._first_seen(end - len(request.draft.token_ids)))

    def publish(self, request: Request) -> None:
        """Make the full blocks findable."""
        self._publish(request, request.kv.num_computed_tokens)

    def release(self, kv: KVState) -> None:
        """Give back every block that the request holds."""
        held = kv.window_table[kv.num_blocks_behind :]
        self._blocks.give_up(set(held))
        self.pool.release(held)
        kv.window_table, kv.num_blocks_behind, kv.num_published_window_blocks = [], 0, 0

    def withdraw(self) -> None:
        """Let nobody find any block, and clean each for its next owner."""
        self.pool.forget()
        self._blocks.spoil(range(self.pool.num_blocks))

    def end_step(self) -> list[BlockCopy]:
        """Give back what only the coming forward sees; the copies that it needs, once."""
        self.pool.release(self._behind)
        self._behind = []
        return self._blocks.take_copies()

    def _first_seen(self, position: int) -> int:
        """The first block that the token at a position sees."""
        return max(position + 1 - self._window, 0) // self._block_size

    def _num_missing(self, kv: KVState, count: int) -> int:
        return -(-(kv.num_computed_tokens + count) // self._block_size) - len(kv.window_table)

    def _leave_behind(self, kv: KVState, first: int) -> list[int]:
        """The blocks that the request holds before `first`, which it holds no longer."""
        left = kv.window_table[kv.num_blocks_behind : first]
        kv.num_blocks_behind = max(first, kv.num_blocks_behind)
        return [block_id for block_id in left if block_id != self.pool.num_blocks]

    def _publish(self, request: Request, num_tokens: int) -> None:
        kv = request.kv
        if not self._prefix_cache or not kv.may_publish:
            return
        for index in range(kv.num_published_window_blocks, num_tokens // self._block_size):
            if not self._hashes.is_known(request, index):
                break
            if index >= kv.num_blocks_behind:
                block_hash = self._hashes.of(request, index)
                self.pool.set_hash(kv.window_table[index], block_hash, self._hashes.before(request, index))
            kv.num_published_window_blocks = index + 1
