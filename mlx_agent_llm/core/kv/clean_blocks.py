"""Blocks whose content is finite when a forward reads them, and what has to be copied for that and for children.

The reference kernels read a block's last slots too before they are written, so a block that may hold what is not finite
is cleaned for its next owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool


class BlockCopy(NamedTuple):
    """A block whose content goes to another one before the next forward writes anything."""

    source: int
    target: int


class CleanBlocks:
    """Takes blocks of a pool; after its blocks lies the padding's, which no request gets."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._copies: list[BlockCopy] = []
        self._spoiled: set[int] = set()

    def take(self, count: int) -> list[int]:
        """Allocate so many, clean."""
        block_ids = self._pool.allocate(count)
        if self._spoiled:
            clean = self._pool.num_blocks
            self._copies += [BlockCopy(clean, one) for one in block_ids if one in self._spoiled]
            self._spoiled.difference_update(block_ids)
        return block_ids

    def copy(self, source: int, target: int) -> None:
        """Let the coming forward begin with a copy."""
        self._drop_copies_to({target})
        self._copies.append(BlockCopy(source, target))

    def spoil(self, block_ids: Iterable[int]) -> None:
        """These may hold what is not finite."""
        self._spoiled.update(block_ids)

    def give_up(self, block_ids: Set[int]) -> None:
        """Forget what was to be copied to these; they stay as they are."""
        self.spoil({target for _, target in self._copies if target in block_ids})
        self._drop_copies_to(block_ids)

    def take_copies(self) -> list[BlockCopy]:
        """Hand over the copies that the coming forward needs, once."""
        copies, self._copies = self._copies, []
        return copies

    def _drop_copies_to(self, block_ids: Set[int]) -> None:
        self._copies = [copy for copy in self._copies if copy.target not in block_ids]
