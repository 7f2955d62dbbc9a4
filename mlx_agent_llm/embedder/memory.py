"""What an embedding or reranking model takes: its weights, a causal model's pool, and the arrays of a batch."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.core.forward.probe import probe_model
from mlx_agent_llm.core.forward.step_memory import matrix_widths, step_bytes
from mlx_agent_llm.core.kv.layer_shape import as_computed
from mlx_agent_llm.core.kv.memory import kv_bytes, pool_sizes
from mlx_agent_llm.embedder.decoder_forward import decoder_config
from mlx_agent_llm.embedder.encoder_forward import MAX_TOKENS
from mlx_agent_llm.models.embedders import UnreadTextModel
from mlx_agent_llm.models.embedders.loading import EmbeddingModel
from mlx_agent_llm.models.embedders.mlx_functions import LAYERS_OF_A_PART, NUM_PARTS
from mlx_agent_llm.models.embedders.numpy_functions import NUM_ACTIVATED, NUM_SCORES
from mlx_agent_llm.models.embedders.reranking import CrossEncoder
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.process.device_memory import device_bytes
from mlx_agent_llm.process.memory_need import MemoryNeed, check_fits

# How often a batch holds what a layer's matrices make of its tokens: on a GPU, for all layers that are begun before
# earlier ones are done, and a tenth of it; on a CPU, numpy computes one after the other. Measured in MB: on an H100
# 2,131 of bge-large's shape (2,989 by these); on a CPU 11 for two texts of 256 tokens of all-MiniLM-L6-v2 (15), 319 for
# one of 8,192 of ModernBERT's base shape (345), 380 of nomic-bert's (559).
_LAYER_COPIES = {mx.cpu: 1.7, mx.gpu: 1.1 * LAYERS_OF_A_PART * (NUM_PARTS + 1)}
_BIAS_COPIES = 3  # distances, their size, and what is added to scores


def check_memory(name: str, device: mx.Device, kv_cache_tokens: int, unread: UnreadTextModel) -> None:
    """Raise a CapacityError with the sum where the model does not fit beside what this process takes already.

    kv_cache_tokens: the size of a causal model's pool.
    """
    is_encoder = isinstance(unread.model, EmbeddingModel | CrossEncoder)
    advice = "Take a smaller model" if is_encoder else "Take a smaller model, or set kv_cache_tokens lower"
    check_fits(name, memory_need(unread, device, kv_cache_tokens), device_bytes(device), advice)


def memory_need(unread: UnreadTextModel, device: mx.Device, kv_cache_tokens: int) -> MemoryNeed:
    """What it takes, with its longest text in a batch."""
    if isinstance(unread.model, EmbeddingModel | CrossEncoder):
        encoder, item_bytes = unread.model.encoder, (unread.dtype or mx.float32).size
        return MemoryNeed(unread.num_bytes, 0, _batch_bytes(encoder, unread.max_tokens, device, item_bytes))
    config = decoder_config(device, kv_cache_tokens)
    with default_device.set_to(device):
        shape = probe_model(unread.model)
    layers = as_computed(shape.layers, unread.dtype)
    assert config.kv_cache_tokens is not None
    sizes = pool_sizes(layers, config, config.kv_cache_tokens, device)
    num_logits = shape.vocab_size if shape.vocab_size == unread.vocab_size else 0  # else it has no head
    step = step_bytes(unread.model, layers, num_logits, config)
    return MemoryNeed(unread.num_bytes, sum(kv_bytes(sizes, layers, config.block_size)), step)


def _batch_bytes(encoder: nn.Module, max_tokens: int, device: mx.Device, item_bytes: int) -> int:
    """A layer's arrays, what is added to the scores of its texts, and on a CPU so many scores as it has at a time."""
    num_tokens = max(max_tokens, MAX_TOKENS[device.type])
    width: float = sum(matrix_widths(encoder)) / len(encoder.layers)
    activations = int(num_tokens * width * item_bytes * _LAYER_COPIES[device.type])
    num_masks = encoder.num_windows * (device.type == mx.gpu)
    bias: int = (encoder.num_biases + num_masks) * max_tokens**2 * mx.float32.size * _BIAS_COPIES
    if device.type == mx.gpu:
        return activations + bias * (num_tokens // max_tokens)  # a mask has it for each text
    return activations + bias + (max(NUM_SCORES, max_tokens) + 2 * NUM_ACTIVATED) * mx.float32.size
