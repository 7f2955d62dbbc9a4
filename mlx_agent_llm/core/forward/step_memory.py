"""How much memory the arrays of a step take, by a model's widths alone."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.layer_shape import KVShape, LayerShape

# How often a step holds what a mean layer's matrices make of its tokens, and the sampled rows' logits in float32.
# Measured on the CPU, 135M parameters: 34 MB for 512 tokens and 4 rows (36 by these), 66 for 1,024 and 4 (68), 63 for
# 512 and 32 rows that are sampled by top_p (63).
_LAYER_COPIES = 3
_LOGITS_COPIES = 5


def parameter_bytes(model: nn.Module) -> int:
    """What a model's parameters take."""
    arrays: dict[str, mx.array] = tree_flatten(model.parameters(), destination={})  # type: ignore[assignment]
    return sum(array.nbytes for array in arrays.values())


def step_bytes(model: nn.Module, layers: Sequence[LayerShape], vocab_size: int, config: EngineConfig) -> int:
    """The arrays of a step of max_tokens_per_step tokens that samples max_num_seqs rows, by the matrices' widths."""
    width = sum(width for width in matrix_widths(model) if width != vocab_size) / len(layers)
    item_bytes = max((layer.dtype.size for layer in layers if isinstance(layer, KVShape)), default=mx.float32.size)
    activations = config.max_tokens_per_step * width * item_bytes * _LAYER_COPIES
    return int(activations) + config.max_num_seqs * vocab_size * mx.float32.size * _LOGITS_COPIES


def matrix_widths(model: nn.Module) -> list[int]:
    """How many values each matrix makes of a token."""
    return [module["weight"].shape[-2] for module in model.modules() if _is_matrix(module)]


def _is_matrix(module: nn.Module) -> bool:
    return "weight" in module and module["weight"].ndim > 1 and not isinstance(module, nn.Embedding)
