"""By which keys a tier knows the blocks of each group of layers."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.tier.segment import KEY_BYTES
from mlx_agent_llm.core.tiering.contents import Kind


class TierKeys:
    """Keys that begin with the fingerprint of a model: nobody finds the KV of another one by them.

    layout: which layers are in which group; engines of one model may differ in that, and then in what a block holds.
    """

    def __init__(self, model: bytes, layout: bytes) -> None:
        self._model = hashlib.blake2b(layout, digest_size=KEY_BYTES, key=model, person=b"kv_layout").digest()

    def of(self, kind: Kind, block_hash: bytes) -> bytes:
        """The key of what layers of this kind keep at a block, or after it."""
        return hashlib.blake2b(
            block_hash, digest_size=KEY_BYTES, key=self._model, person=b"kv_" + kind.encode()
        ).digest()


class GroupPools(NamedTuple):
    """The pools of the groups of layers that a model has."""

    full: BlockPool
    window: BlockPool | None
    state: BlockPool | None

    @classmethod
    def of(cls, kv_manager: KVManager) -> GroupPools:
        """Those of a KV manager."""
        windows, states = kv_manager.windows, kv_manager.states
        return cls(kv_manager.pool, None if windows is None else windows.pool, None if states is None else states.pool)

    def by_kind(self) -> dict[Kind, BlockPool]:
        """The pools that there are."""
        named: dict[Kind, BlockPool | None] = {"full": self.full, "window": self.window, "state": self.state}
        return {kind: pool for kind, pool in named.items() if pool is not None}
