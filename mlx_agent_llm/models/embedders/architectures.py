"""Which encoder a config.json stands for, and what its weights are called in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models.embedders import bert_config, gemma_config, modernbert_config, nomic_config
from mlx_agent_llm.models.embedders.encoder import Encoder
from mlx_agent_llm.models.embedders.gemma_encoder import GemmaEncoder
from mlx_agent_llm.models.embedders.mlx_functions import MLXFunctions
from mlx_agent_llm.models.embedders.modern_encoder import ModernEncoder
from mlx_agent_llm.models.embedders.numpy_functions import NumpyFunctions
from mlx_agent_llm.models.embedders.weights import Rename

MODEL_TYPES = (*bert_config.MODEL_TYPES, "modernbert", "nomic_bert", "gemma3_text")


class Architecture(NamedTuple):
    """An encoder that can be made for a device; max_tokens is its longest text."""

    make: Callable[[mx.Device], nn.Module]
    rename: Rename
    model_type: str
    vocab_size: int
    hidden_size: int
    max_tokens: int


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a config.json; UnsupportedModelError for one that we do not compute."""
    model_type = config.get("model_type")
    if model_type == "modernbert":
        modern = modernbert_config.read_shape(config)
        return Architecture(
            lambda device: ModernEncoder(modern, _functions_of(device)),
            modernbert_config.rename_weight,
            model_type,
            modern.vocab_size,
            modern.hidden_size,
            modern.max_tokens,
        )
    if model_type == "gemma3_text":
        gemma = gemma_config.read_shape(config)
        return Architecture(
            lambda device: GemmaEncoder(gemma, _functions_of(device)),
            gemma_config.rename_weight,
            model_type,
            gemma.vocab_size,
            gemma.hidden_size,
            gemma.max_tokens,
        )
    if model_type == "nomic_bert":
        shape, rename = nomic_config.read_shape(config), nomic_config.rename_weight
    elif model_type in bert_config.MODEL_TYPES:
        shape, rename = bert_config.read_shape(config), bert_config.rename_weight
    else:
        raise UnsupportedModelError(
            f"model_type={model_type!r} is no encoder that is supported: {', '.join(MODEL_TYPES)}"
        )
    return Architecture(
        lambda device: Encoder(shape, _functions_of(device)),
        rename,
        model_type,
        shape.vocab_size,
        shape.hidden_size,
        shape.max_tokens,
    )


def _functions_of(device: mx.Device) -> MLXFunctions | NumpyFunctions:
    return NumpyFunctions() if device.type == mx.cpu else MLXFunctions()
