"""Attention over paged KV pools, the KV write and the token bitmask, as typed functions on MLX arrays.

Every function stands in `reference` in plain MLX operations: the specification and the path of the CPU.
"""

from mlx_agent_kernels.reference import (
    apply_token_bitmask,
    chunk_attention,
    paged_attention,
    shared_prefix_attention,
    write_kv,
)

__all__ = ["apply_token_bitmask", "chunk_attention", "paged_attention", "shared_prefix_attention", "write_kv"]
