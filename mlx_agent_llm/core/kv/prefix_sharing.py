"""What a request begins with that is there already: the blocks of its parent, or those that match its prefix."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.clean_blocks import CleanBlocks
from mlx_agent_llm.core.kv.layer_group import LayerGroup
from mlx_agent_llm.core.kv.prefix_hashes import PrefixHashes
from mlx_agent_llm.request import KVState, Request


class PrefixSharing:
    """Extends block tables by references to blocks of the pool."""

    def __init__(
        self,
        pool: BlockPool,
        blocks: CleanBlocks,
        groups: Sequence[LayerGroup],
        hashes: PrefixHashes,
        *,
        prefix_cache: bool,
    ) -> None:
        self._pool = pool
        self._blocks = blocks
        self._groups = groups
        self._hashes = hashes
        self._prefix_cache = prefix_cache

    def share(self, request: Request) -> None:
        """Extend the table by what is already there: the parent's blocks, or those that match the prefix.

        A parent has gone on meanwhile: what its windows saw and its states were before that is left where others find
        it, too.
        """
        if self._groups:
            request.parent = None
        if request.parent is not None:
            self._share_with_parent(request, request.parent)
        elif self._prefix_cache:
            self._adopt_cached_blocks(request)

    def copy_partial_block(self, request: Request, parent: Request) -> None:
        """Both go on writing the block that holds their next token, so the child's is a copy."""
        index, num_filled = divmod(request.kv.num_computed_tokens, self._hashes.block_size)
        if num_filled:
            self._blocks.copy(parent.kv.block_table[index], request.kv.block_table[index])

    def _share_with_parent(self, request: Request, parent: Request) -> None:
        """Take a reference to each block of the parent that the child will never write: the full ones."""
        assert request.cache_key == parent.cache_key, "the KV of parent and child differs"
        assert not request.kv.block_table and parent.kv.num_computed_tokens >= request.num_tokens - 1
        num_full = (request.num_tokens - 1) // self._hashes.block_size
        block_table = parent.kv.block_table[:num_full]
        for block_id in block_table:
            self._pool.share(block_id)
        request.kv = KVState(
            block_table=block_table,
            num_computed_tokens=request.num_tokens - 1,
            block_hashes=parent.kv.block_hashes[:num_full],
            num_published_blocks=min(parent.kv.num_published_blocks, num_full),
            may_publish=parent.kv.may_publish,
        )

    def _adopt_cached_blocks(self, request: Request) -> None:
        """Share every next block up to the last border at which all groups can go on; one token at least is left."""
        kv = request.kv
        first = kv.num_computed_tokens // self._hashes.block_size
        found = self._find_cached_blocks(request, first)
        end = first + len(found)
        borders = (n for n in range(end, first, -1) if all(group.agrees(request, n) for group in self._groups))
        border = next(borders, first)
        for group in self._groups:
            group.adopt(request, border, end)
        for block_id in found[: border - first]:
            self._pool.share(block_id)
        kv.block_table += found[: border - first]
        kv.num_computed_tokens = max(border * self._hashes.block_size, kv.num_computed_tokens)

    def _find_cached_blocks(self, request: Request, first: int) -> list[int]:
        """The next blocks that are there, from `first` on."""
        found: list[int] = []
        for index in range(first, (request.num_tokens - 1) // self._hashes.block_size):
            is_known = self._hashes.is_known(request, index)
            block_id = self._pool.find(self._hashes.of(request, index)) if is_known else None
            if block_id is None:
                break
            found.append(block_id)
        return found
