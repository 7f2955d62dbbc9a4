"""Whether a model fits its device: what it will take is added up and compared before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.step_memory import step_bytes
from mlx_agent_llm.core.kv.layer_shape import LayerShape, as_computed, state_bytes, token_bytes
from mlx_agent_llm.core.kv.memory import MIN_SLOTS, kv_bytes, pool_sizes
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models import UnreadModel
from mlx_agent_llm.process.device_memory import device_bytes, usable_bytes
from mlx_agent_llm.process.memory_need import MemoryNeed, check_fits

_ADVICE = (
    "Take a smaller quantization, or set EngineConfig's kv_cache_bytes, max_model_len, max_tokens_per_step or "
    "max_num_seqs lower"
)


def check_memory(name: str, config: EngineConfig, max_model_len: int, device: mx.Device, unread: UnreadModel) -> None:
    """Raise a CapacityError with the sum where the model, its KV pool and a step take more than the device has."""
    try:
        shape = probe_model(unread.model)
    except UnsupportedModelError:
        return  # it is refused when it is loaded, in the words of what finds it first
    layers = as_computed(shape.layers, unread.dtype)
    need = MemoryNeed(
        weights=unread.num_bytes,
        pool=_pool_bytes(layers, config, max_model_len, device, unread.num_bytes),
        step=step_bytes(unread.model, layers, shape.vocab_size, config),
    )
    available = usable_bytes(device) if _has_default_pool(config) else device_bytes(device)
    check_fits(name, need, available, _ADVICE)


def _pool_bytes(
    layers: Sequence[LayerShape], config: EngineConfig, max_model_len: int, device: mx.Device, unread_bytes: int
) -> int:
    """What is asked for, or else on a GPU, where the pool takes a part of what is left, the least that it can be."""
    if _has_default_pool(config) and device.type == mx.gpu:
        return config.block_size * token_bytes(layers) + MIN_SLOTS * state_bytes(layers)
    sizes = pool_sizes(layers, config, max_model_len, device, unread_bytes)
    return sum(kv_bytes(sizes, layers, config.block_size))


def _has_default_pool(config: EngineConfig) -> bool:
    return config.kv_cache_bytes is None and config.kv_cache_tokens is None
