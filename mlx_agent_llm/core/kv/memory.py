"""How many blocks the KV pool gets, and how many slots the states of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.layer_shape import LayerShape, state_bytes, token_bytes
from mlx_agent_llm.errors import CapacityError

CPU_POOL_BYTES = 2**30
MAX_EMPTY_BLOCKS = 2**16  # of a model that keeps nothing for a token: 2**20 tokens in blocks of 16
MIN_SLOTS = 2  # of the state before a step and the one after it
GPU_POOL_FRACTION = 0.6  # of the memory the device recommends, after the weights


class PoolSizes(NamedTuple):
    """Blocks of keys and values, and slots of states: 0 where no layer has any."""

    num_blocks: int
    num_slots: int

    def num_bytes(self, shapes: Sequence[LayerShape], block_size: int) -> int:
        """What they take in layers of these shapes."""
        return self.num_blocks * block_size * token_bytes(shapes) + self.num_slots * state_bytes(shapes)


def pool_sizes(shapes: Sequence[LayerShape], config: EngineConfig, max_model_len: int, device: mx.Device) -> PoolSizes:
    """Slots for running requests and snapshots from at most half of the memory; blocks from the rest.

    Neither is more than max_num_seqs full contexts and max_state_snapshots need. Blocks of a model that keeps nothing
    for a token take no memory: there are as many as that.
    """
    num_bytes = config.kv_cache_bytes if config.kv_cache_bytes is not None else default_pool_bytes(device)
    num_slots = _num_slots(state_bytes(shapes), config, num_bytes // 2)
    if config.kv_cache_tokens is not None:
        return PoolSizes(-(-config.kv_cache_tokens // config.block_size), num_slots)
    most_blocks = config.max_num_seqs * -(-max_model_len // config.block_size)
    block_bytes = token_bytes(shapes) * config.block_size
    if block_bytes == 0:
        return PoolSizes(min(most_blocks, MAX_EMPTY_BLOCKS), num_slots)
    num_bytes -= num_slots * state_bytes(shapes)
    if num_bytes < block_bytes:
        raise CapacityError(
            f"a KV pool of {num_bytes} bytes holds no block: one takes {block_bytes} bytes "
            f"({token_bytes(shapes)} a token x block_size={config.block_size})"
        )
    return PoolSizes(min(num_bytes // block_bytes, most_blocks), num_slots)


def _num_slots(slot_bytes: int, config: EngineConfig, num_bytes: int) -> int:
    """A running request has a slot, and one more in the step in which it leaves a snapshot behind."""
    if slot_bytes == 0:
        return 0
    num_slots = min(2 * config.max_num_seqs + config.max_state_snapshots, num_bytes // slot_bytes)
    if num_slots < MIN_SLOTS:
        raise CapacityError(
            f"half of a KV pool of {2 * num_bytes} bytes holds {num_slots} states of the recurrent layers, and at "
            f"least {MIN_SLOTS} are needed: one takes {slot_bytes} bytes"
        )
    return num_slots


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
