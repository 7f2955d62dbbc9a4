"""What the KV manager asks of each group of layers that keeps something else than all keys and values."""

from __future__ import annotations

from typing import Protocol

from mlx_agent_llm.core.kv.block_pool import BlockPool
from mlx_agent_llm.request import KVState, Request


class LayerGroup(Protocol):
    """Layers with a pool of their own: those that see a window, or that keep a state."""

    pool: BlockPool

    def agrees(self, request: Request, num_blocks: int) -> bool:
        """Whether the request could go on after its first num_blocks blocks, more than it has computed."""

    def adopt(self, request: Request, num_blocks: int, num_found: int) -> None:
        """Take what is there of the first num_blocks, which may be no more than computed; others found num_found."""

    def has_room(self, request: Request, count: int) -> bool:
        """Whether the request's next `count` tokens can be computed."""

    def advance(self, request: Request, count: int) -> None:
        """Take room for the request's next `count` tokens, at least one, which the coming forward computes."""

    def publish(self, request: Request) -> None:
        """Let others find what was computed of the request."""

    def release(self, kv: KVState) -> None:
        """Give back all that a request holds; what was published stays findable."""

    def withdraw(self) -> None:
        """Let nobody find anything any more: some of it may not be finite."""
