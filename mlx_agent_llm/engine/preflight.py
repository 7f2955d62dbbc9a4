"""Whether a model fits its device: what it will take is added up and compared before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.draft_parts import DraftParts
from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.step_memory import step_bytes
from mlx_agent_llm.core.kv.layer_shape import LayerShape, as_computed
from mlx_agent_llm.core.kv.memory import MIN_SLOTS, PoolSizes, kv_bytes, pool_sizes
from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models import UnreadModel
from mlx_agent_llm.process.device_memory import device_bytes, usable_bytes
from mlx_agent_llm.process.memory_need import MemoryNeed, check_fits

_ADVICE = (
    "Take a smaller quantization, or set EngineConfig's kv_cache_bytes, max_model_len, max_tokens_per_step or "
    "max_num_seqs lower"
)


def check_memory(
    name: str,
    config: EngineConfig,
    max_model_len: int,
    device: mx.Device,
    unread: UnreadModel,
    unread_draft: UnreadModel | None = None,
) -> None:
    """Raise a CapacityError with the sum where the model, its KV pool and a step take more than the device has.

    unread_draft: the model that drafts for it, with caches of as many tokens as the pool holds.
    """
    try:
        main = _parts(unread)
        draft = None if unread_draft is None else _parts(unread_draft)
    except UnsupportedModelError:
        return  # it is refused when it is loaded, in the words of what finds it first
    unread_bytes = main.weights + (0 if draft is None else draft.weights)
    draft_token_bytes = 0 if draft is None else draft.token_bytes
    sizes = _pool_sizes(main.layers, config, max_model_len, device, unread_bytes, draft_token_bytes)
    need = MemoryNeed(
        weights=main.weights,
        pool=sum(kv_bytes(sizes, main.layers, config.block_size)),
        step=step_bytes(main.model, main.layers, main.vocab_size, config),
    )
    if draft is not None:
        name = f"{name} with draft_model={config.draft_model!r}"
        need = need.with_draft_model(draft.need(sizes.num_blocks * config.block_size, config))
    available = usable_bytes(device) if _has_default_pool(config) else device_bytes(device)
    check_fits(name, need, available, _ADVICE)


def _parts(unread: UnreadModel) -> DraftParts:
    shape = probe_model(unread.model)
    return DraftParts(unread.model, unread.num_bytes, as_computed(shape.layers, unread.dtype), shape.vocab_size)


def _pool_sizes(
    layers: Sequence[LayerShape],
    config: EngineConfig,
    max_model_len: int,
    device: mx.Device,
    unread_bytes: int,
    draft_token_bytes: int,
) -> PoolSizes:
    """What is asked for, or else on a GPU, where the pool takes a part of what is left, the least that it can be."""
    if _has_default_pool(config) and device.type == mx.gpu:
        return PoolSizes(1, MIN_SLOTS)
    return pool_sizes(layers, config, max_model_len, device, unread_bytes, draft_token_bytes)


def _has_default_pool(config: EngineConfig) -> bool:
    return config.kv_cache_bytes is None and config.kv_cache_tokens is None
