"""How many blocks the KV pool gets."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.errors import CapacityError

CPU_POOL_BYTES = 2**30
GPU_POOL_FRACTION = 0.6  # of the memory the device recommends, after the weights


def num_pool_blocks(shapes: Sequence[KVShape], config: EngineConfig, max_model_len: int, device: mx.Device) -> int:
    """Blocks for the configured size, else for the device's, but never more than max_num_seqs full contexts need."""
    token_bytes = sum(shape.num_bytes for shape in shapes)
    if config.kv_cache_tokens is not None:
        return -(-config.kv_cache_tokens // config.block_size)
    num_bytes = config.kv_cache_bytes if config.kv_cache_bytes is not None else default_pool_bytes(device)
    num_blocks = num_bytes // (token_bytes * config.block_size)
    if num_blocks < 1:
        raise CapacityError(
            f"a KV pool of {num_bytes} bytes holds no block: one takes {token_bytes * config.block_size} bytes "
            f"({token_bytes} a token x block_size={config.block_size})"
        )
    return min(num_blocks, config.max_num_seqs * -(-max_model_len // config.block_size))


def default_pool_bytes(device: mx.Device) -> int:
    """A safe fraction of what a GPU has left beside the weights; a fixed bound on the CPU."""
    if device.type == mx.cpu:
        return CPU_POOL_BYTES
    return int(max(_gpu_bytes(device) - mx.get_active_memory(), 0) * GPU_POOL_FRACTION)


def describe_default_pool(device: mx.Device) -> str:
    """The default size, and how it comes about, in words."""
    origin = "fixed on the CPU"
    if device.type != mx.cpu:
        origin = f"{GPU_POOL_FRACTION:.0%} of what the model's weights leave of {_gpu_bytes(device) / 2**30:.1f} GiB"
    return (
        f"{default_pool_bytes(device) / 2**30:.1f} GiB: {origin}; less when max_num_seqs full contexts need less; "
        "EngineConfig's kv_cache_bytes and kv_cache_tokens change it"
    )


def _gpu_bytes(device: mx.Device) -> int:
    """What the device recommends to use at most, or else all it has."""
    info = mx.device_info(device)
    return int(info.get("max_recommended_working_set_size") or info["total_memory"])
