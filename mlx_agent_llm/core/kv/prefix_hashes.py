"""What the content of full blocks is known by: the hash of a block's tokens and of everything before them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from mlx_agent_llm.request import Request


class PrefixHashes:
    """The hashes of requests' full blocks, each made once."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def is_known(self, request: Request, index: int) -> bool:
        """Whether every token of block `index` was read; one sampled on the device may still be in flight."""
        return (index + 1) * self.block_size <= len(request.token_ids)

    def of(self, request: Request, index: int) -> bytes:
        """The hash of block `index`: of its tokens and, through the hash before it, of everything before them."""
        hashes = request.kv.block_hashes
        while len(hashes) <= index:
            start = len(hashes) * self.block_size
            before = self.before(request, len(hashes))
            hashes.append(_hash_block(before, request.token_ids[start : start + self.block_size]))
        return hashes[index]

    def before(self, request: Request, index: int) -> bytes:
        """What block `index` follows: the block before it, or else what sets the request apart."""
        return request.kv.block_hashes[index - 1] if index else request.cache_key


def _hash_block(before: bytes, token_ids: Sequence[int]) -> bytes:
    """16 bytes that no hash of anything else, such as a salt, can be made equal to: `person` tells what they are of."""
    return hashlib.blake2b(array("q", token_ids).tobytes(), digest_size=16, key=before, person=b"kv_block").digest()
