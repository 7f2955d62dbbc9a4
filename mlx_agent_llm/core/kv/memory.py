"""How many blocks the KV pool gets, and how many slots the states of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.layer_shape import KVShape, LayerShape, sees_window, state_bytes, token_bytes
from mlx_agent_llm.errors import CapacityError
from mlx_agent_llm.process.device_memory import (
    GIB,
    device_bytes,
    is_unified,
    physical_bytes,
    system_bytes,
    usable_bytes,
)

CPU_POOL_BYTES = 2**30
MAX_EMPTY_BLOCKS = 2**16  # of a model that keeps nothing for a token: 2**20 tokens in blocks of 16
MIN_SLOTS = 2  # of the state before a step and the one after it
GPU_POOL_FRACTION = 0.6  # of the usable memory, after the weights; the rest is for a step's arrays and MLX's cache


class PoolSizes(NamedTuple):
    """How many blocks of keys and values there are, and slots of states.

    num_window_blocks: of the layers that see a window; 0 where these share the others' table, because there is none or
    because it would save nothing.
    """

    num_blocks: int
    num_slots: int = 0
    num_window_blocks: int = 0
    window: int = 0  # tokens that such a layer sees at most


class KVBytes(NamedTuple):
    """Memory of the pools, in bytes: of layers that see everything, of those that see a window, and of states."""

    full: int
    window: int
    states: int


def pool_sizes(
    shapes: Sequence[LayerShape],
    config: EngineConfig,
    max_model_len: int,
    device: mx.Device,
    unread_bytes: int = 0,
    draft_token_bytes: int = 0,
) -> PoolSizes:
    """How the memory is divided, or the configured number of tokens.

    Slots for running requests and snapshots get at most half of it. Layers with a window get what running requests
    take, twice, so that prefixes can be found; the others get the rest. No group gets more than max_num_seqs full
    contexts and max_state_snapshots need. Blocks of a model that keeps nothing for a token take no memory: there are
    as many as that. unread_bytes: of weights that are not in memory yet. draft_token_bytes: what a draft model's caches
    take for a token; they get their part of a default pool's memory, and come beside one whose size is configured.
    """
    num_bytes = config.kv_cache_bytes
    if num_bytes is None:
        own_bytes = token_bytes(shapes) or draft_token_bytes
        num_bytes = (
            default_pool_bytes(device, unread_bytes) * max(own_bytes, 1) // max(own_bytes + draft_token_bytes, 1)
        )
    num_slots = _num_slots(state_bytes(shapes), config, num_bytes // 2)
    window = max((w for w in map(_window, shapes) if w is not None and w < max_model_len), default=0)
    num_bytes -= num_slots * state_bytes(shapes)
    most_blocks = config.max_num_seqs * -(-max_model_len // config.block_size)
    if config.kv_cache_tokens is not None:
        num_even = -(-config.kv_cache_tokens // config.block_size)
    else:
        num_even = min(_num_even_blocks(token_bytes(shapes), config, num_bytes), most_blocks)
    num_window_blocks = _num_window_blocks(window, config)
    if not window or num_window_blocks >= num_even:
        return PoolSizes(num_even, num_slots)
    if config.kv_cache_tokens is not None:
        return PoolSizes(num_even, num_slots, num_window_blocks, window)
    full_bytes = token_bytes([shape for shape in shapes if not sees_window(shape, window)])
    window_bytes = token_bytes(shapes) - full_bytes
    num_bytes -= num_window_blocks * config.block_size * window_bytes
    num_blocks = min(_num_even_blocks(full_bytes, config, num_bytes), most_blocks)
    return PoolSizes(num_blocks, num_slots, num_window_blocks, window)


def kv_bytes(sizes: PoolSizes, shapes: Sequence[LayerShape], block_size: int) -> KVBytes:
    """What pools of these sizes take."""
    full_bytes = token_bytes([shape for shape in shapes if not sees_window(shape, sizes.window)])
    return KVBytes(
        sizes.num_blocks * block_size * full_bytes,
        sizes.num_window_blocks * block_size * (token_bytes(shapes) - full_bytes),
        sizes.num_slots * state_bytes(shapes),
    )


def _window(shape: LayerShape) -> int | None:
    return shape.window if isinstance(shape, KVShape) else None


def _num_even_blocks(token_bytes: int, config: EngineConfig, num_bytes: int) -> int:
    """How many blocks of layers that keep so much of a token fit."""
    block_bytes = token_bytes * config.block_size
    if block_bytes == 0:
        return MAX_EMPTY_BLOCKS
    if num_bytes < block_bytes:
        raise CapacityError(
            f"a KV pool of {num_bytes} bytes holds no block: one takes {block_bytes} bytes "
            f"({token_bytes} a token x block_size={config.block_size})"
        )
    return num_bytes // block_bytes


def _num_window_blocks(window: int, config: EngineConfig) -> int:
    """Twice what running requests hold: what their next tokens see, and what one step computes."""
    num_seen = -(-(window - 1) // config.block_size) + 2
    return 2 * (config.max_num_seqs * num_seen + -(-config.max_tokens_per_step // config.block_size))


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


def default_pool_bytes(device: mx.Device, unread_bytes: int = 0) -> int:
    """A safe fraction of what a GPU has left beside the weights; a fixed bound on the CPU."""
    if device.type == mx.cpu:
        return CPU_POOL_BYTES
    return int(max(usable_bytes(device) - mx.get_active_memory() - unread_bytes, 0) * GPU_POOL_FRACTION)


def describe_default_pool(device: mx.Device) -> str:
    """The default size, and how it comes about, in words."""
    return (
        f"{default_pool_bytes(device) / GIB:.1f} GiB: {_origin(device)}; less when max_num_seqs full contexts need "
        "less; EngineConfig's kv_cache_bytes and kv_cache_tokens change it"
    )


def _origin(device: mx.Device) -> str:
    if device.type == mx.cpu:
        return "fixed on the CPU"
    origin = f"{GPU_POOL_FRACTION:.0%} of what the model's weights leave of {usable_bytes(device) / GIB:.1f} GiB"
    if not is_unified(device):
        return origin
    return (
        f"{origin} (the recommended working set of {device_bytes(device) / GIB:.1f} GiB, where that leaves the system "
        f"{system_bytes() / GIB:.1f} of {physical_bytes() / GIB:.1f} GiB)"
    )
