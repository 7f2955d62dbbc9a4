"""Attention over paged KV pools, the writes of keys and values and the token bitmask, as typed functions on MLX arrays.

Every function stands in `reference` in plain MLX operations: the specification and the path of the CPU. On a GPU the
attention functions run the kernels of src/; `backend` says which of the three is used.
"""

from mlx_agent_kernels.attention import chunk_attention, paged_attention, shared_prefix_attention
from mlx_agent_kernels.checks import UnsupportedKernelError
from mlx_agent_kernels.elementwise import swiglu
from mlx_agent_kernels.heads import HeadOptions, rotate_and_write
from mlx_agent_kernels.levels import SharedLevel
from mlx_agent_kernels.loader import backend
from mlx_agent_kernels.projections import Norm, QuantizedWeight, Weight, has_product_kernel, project
from mlx_agent_kernels.reference import apply_token_bitmask, write_kv
from mlx_agent_kernels.writes import Writes, write_pools

__all__ = [
    "HeadOptions",
    "Norm",
    "QuantizedWeight",
    "SharedLevel",
    "UnsupportedKernelError",
    "Weight",
    "Writes",
    "apply_token_bitmask",
    "backend",
    "chunk_attention",
    "has_product_kernel",
    "paged_attention",
    "project",
    "rotate_and_write",
    "shared_prefix_attention",
    "swiglu",
    "write_kv",
    "write_pools",
]
