"""Whether a model fits its device: what it will take is added up and compared before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.kv.layer_shape import KVShape, LayerShape, as_computed, state_bytes, token_bytes
from mlx_agent_llm.core.kv.memory import MIN_SLOTS, kv_bytes, pool_sizes
from mlx_agent_llm.errors import CapacityError, UnsupportedModelError
from mlx_agent_llm.models import UnreadModel
from mlx_agent_llm.process.device_memory import GIB, device_bytes, usable_bytes

# How often a step holds what a mean layer's matrices make of its tokens, and the sampled rows' logits in float32.
# Measured on the CPU, 135M parameters: 34 MB for 512 tokens and 4 rows (36 by these), 66 for 1,024 and 4 (68), 63 for
# 512 and 32 rows that are sampled by top_p (63).
_LAYER_COPIES = 3
_LOGITS_COPIES = 5


class MemoryNeed(NamedTuple):
    """Bytes that are needed at least.

    step: arrays of a full step. MLX's cache is made of them once they are freed, and what else it keeps MLX gives back
    before its memory limit is reached.
    """

    others: int  # that this process's other arrays take
    weights: int
    pool: int
    step: int


def check_memory(name: str, config: EngineConfig, max_model_len: int, device: mx.Device, unread: UnreadModel) -> None:
    """Raise a CapacityError with the sum where the model, its KV pool and a step take more than the device has."""
    try:
        shape = probe_model(unread.model)
    except UnsupportedModelError:
        return  # it is refused when it is loaded, in the words of what finds it first
    layers = as_computed(shape.layers, unread.dtype)
    need = MemoryNeed(
        others=mx.get_active_memory(),
        weights=unread.num_bytes,
        pool=_pool_bytes(layers, config, max_model_len, device, unread.num_bytes),
        step=step_bytes(unread.model, layers, shape.vocab_size, config),
    )
    available = usable_bytes(device) if _has_default_pool(config) else device_bytes(device)
    if sum(need) > available:
        raise CapacityError(_refusal(name, need, available))


def step_bytes(model: nn.Module, layers: Sequence[LayerShape], vocab_size: int, config: EngineConfig) -> int:
    """The arrays of a step of max_tokens_per_step tokens that samples max_num_seqs rows, by the matrices' widths."""
    matrices = [module["weight"] for module in model.modules() if _is_matrix(module)]
    width = sum(matrix.shape[-2] for matrix in matrices if matrix.shape[-2] != vocab_size) / len(layers)
    item_bytes = max((layer.dtype.size for layer in layers if isinstance(layer, KVShape)), default=mx.float32.size)
    activations = config.max_tokens_per_step * width * item_bytes * _LAYER_COPIES
    return int(activations) + config.max_num_seqs * vocab_size * mx.float32.size * _LOGITS_COPIES


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


def _is_matrix(module: nn.Module) -> bool:
    return "weight" in module and module["weight"].ndim > 1 and not isinstance(module, nn.Embedding)


def _refusal(name: str, need: MemoryNeed, available: int) -> str:
    return (
        f"{name} does not fit: {need.weights / GIB:.2f} GiB of weights, {need.pool / GIB:.2f} of the KV pool, "
        f"{need.step / GIB:.2f} of a step and {need.others / GIB:.2f} that other arrays of this process take are "
        f"{sum(need) / GIB:.2f} GiB, and {available / GIB:.2f} GiB may be used. Take a smaller quantization, or set "
        "EngineConfig's kv_cache_bytes, max_model_len, max_tokens_per_step or max_num_seqs lower"
    )
