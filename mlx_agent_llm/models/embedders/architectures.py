"""What transformers' config.json and weight names mean for our encoder, an entry for each model_type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.config import check_range
from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.embedders.encoder import ACTIVATIONS, EncoderShape

MODEL_TYPES = ("bert", "camembert", "mpnet", "roberta", "xlm-roberta")
_POSITIONS_AFTER_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta"}  # as fairseq counts them
_PREFIX = re.compile(r"(?:bert|roberta|mpnet)\.")
_UNUSED = re.compile(r"pooler\.|cls\.|lm_head\.|embeddings\.(?:position|token_type)_ids")
_RENAMED = (
    (re.compile(r"^embeddings\.LayerNorm\."), "embeddings_norm."),
    (re.compile(r"^embeddings\."), ""),
    (re.compile(r"^encoder\.relative_attention_bias\."), "position_bias."),
    (re.compile(r"^encoder\.layer\."), "layers."),
    (re.compile(r"\.attention\.self\.(query|key|value)\."), r".\1."),
    (re.compile(r"\.attention\.attn\.q\."), ".query."),
    (re.compile(r"\.attention\.attn\.k\."), ".key."),
    (re.compile(r"\.attention\.attn\.v\."), ".value."),
    (re.compile(r"\.attention\.(?:output\.dense|attn\.o)\."), ".attention_out."),
    (re.compile(r"\.attention\.(?:output\.)?LayerNorm\."), ".attention_norm."),
    (re.compile(r"\.intermediate\.dense\."), ".up."),
    (re.compile(r"\.output\.dense\."), ".down."),
    (re.compile(r"\.output\.LayerNorm\."), ".output_norm."),
)


def read_shape(config: Mapping[str, Any]) -> EncoderShape:
    """The sizes that a config.json names; UnsupportedModelError for what this encoder does not compute."""
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UnsupportedModelError(
            f"model_type={model_type!r} is no embedding model that is supported: {', '.join(MODEL_TYPES)}"
        )
    _check_variant(config)
    follows_padding = model_type in _POSITIONS_AFTER_PADDING
    try:
        shape = EncoderShape(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            num_positions=config["max_position_embeddings"],
            first_position=config.get("pad_token_id", 1) + 1 if follows_padding else 0,
            num_token_types=0 if model_type == "mpnet" else config["type_vocab_size"],
            num_position_buckets=config.get("relative_attention_num_buckets", 32) if model_type == "mpnet" else 0,
            norm_eps=config.get("layer_norm_eps", 1e-12),
            activation=config.get("hidden_act", "gelu"),
        )
    except KeyError as error:
        raise ModelLoadError(f"config.json names no {error.args[0]}") from error
    _check_sizes(shape)
    return shape


def rename_weight(name: str) -> str | None:
    """Our name of a weight of transformers; None when an encoder has no use for it."""
    name = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _check_variant(config: Mapping[str, Any]) -> None:
    wanted = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise UnsupportedModelError(f"{name}={config[name]!r} is not supported: only {value!r}")
    if (activation := config.get("hidden_act", "gelu")) not in ACTIVATIONS:
        raise UnsupportedModelError(f"hidden_act={activation!r} is not supported: {', '.join(ACTIVATIONS)}")


def _check_sizes(shape: EncoderShape) -> None:
    try:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_tokens"):
            check_range(name, getattr(shape, name), 1)
    except ValueError as error:
        raise ModelLoadError(f"config.json: {error}") from error
    if shape.hidden_size % shape.num_heads:
        raise ModelLoadError(
            f"config.json: hidden_size={shape.hidden_size} must be a multiple of num_attention_heads={shape.num_heads}"
        )
