"""Causal models of mlx-lm whose last token is read: embedding models without a head, and judges that say yes or no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm import utils as mlx_lm_utils

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.configuration import check_configuration, context_length, model_classes
from mlx_agent_llm.models.rotary_settings import check_rotary_settings
from mlx_agent_llm.models.safetensors import check_safetensors
from mlx_agent_llm.models.transformers_names import in_mlx_lm_names

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
# Some embedding models let a causal architecture see both ways, by these values or by code of their own.
_CAUSAL = {"is_causal": True, "use_bidirectional_attention": False, "auto_map": None}


@dataclass(frozen=True)
class Decoder:
    """A causal model, and what is made of its outputs (S, W) for the last tokens of S texts: (S, D) in float32."""

    model: nn.Module
    vocab_size: int
    read: Callable[[mx.array], mx.array]


def check_causal(path: Path, config: Mapping[str, Any]) -> int:
    """The model's context; UnsupportedModelError where it is not as causal as mlx-lm computes it."""
    check_configuration(path / "config.json", config)
    for name, value in _CAUSAL.items():
        if config.get(name, value) not in (value, None):
            raise UnsupportedModelError(f"{path}: {name}={config[name]!r:.60} is not supported: only {value!r}")
    context = context_length(config)
    if context is None:
        raise ModelLoadError(f"{path}: config.json names no max_position_embeddings")
    return context


def read_headless(path: Path, config: Mapping[str, Any]) -> nn.Module:
    """A model whose outputs are its last hidden states, (B, L, hidden_size); its weights are not yet evaluated."""
    for file in sorted(path.glob("model*.safetensors")):
        check_safetensors(file)
    named = in_mlx_lm_names(config)
    try:
        model: nn.Module = mlx_lm_utils.load_model(
            path, lazy=True, model_config=named, get_model_classes=_headless_classes
        )[0]
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        raise ModelLoadError(f"{path}: mlx-lm cannot load this model: {type(error).__name__}: {error}") from error
    check_rotary_settings(path / "config.json", named, model_classes(config)[1], model)
    return model


def _headless_classes(config: Mapping[str, Any]) -> tuple[type[nn.Module], type]:
    """mlx-lm's classes, but for the head; weights may be those of the inner model alone."""
    whole, args_class = model_classes(config)

    class Headless(whole):  # type: ignore[valid-type,misc]
        def __init__(self, args: Any) -> None:
            super().__init__(args)
            self.pop("lm_head", None)

        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            hidden: mx.array = self.model(inputs, cache)
            return hidden

        def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
            inner = {name if name.startswith("model.") else f"model.{name}": array for name, array in weights.items()}
            inner.pop("model.lm_head.weight", None)
            sane: dict[str, mx.array] = super().sanitize(inner) if hasattr(whole, "sanitize") else inner
            return sane

    Headless.__module__ = whole.__module__
    return Headless, args_class
