"""What transformers' config.json and weight names of the BERT family mean for our encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.embedders.config_values import ConfigValues
from mlx_agent_llm.models.embedders.encoder import EncoderShape

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
    values = ConfigValues(config)
    values.require({"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False})
    model_type = config["model_type"]
    follows_padding = model_type in _POSITIONS_AFTER_PADDING
    shape = EncoderShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=values.size("hidden_size"),
        num_layers=values.size("num_hidden_layers"),
        num_heads=values.heads("num_attention_heads", of=("hidden_size",)),
        intermediate_size=values.size("intermediate_size"),
        num_positions=values.size("max_position_embeddings"),
        first_position=config.get("pad_token_id", 1) + 1 if follows_padding else 0,
        num_token_types=0 if model_type == "mpnet" else values.size("type_vocab_size"),
        num_position_buckets=config.get("relative_attention_num_buckets", 32) if model_type == "mpnet" else 0,
        norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=values.activation("hidden_act"),
    )
    if shape.max_tokens < 1:
        raise ModelLoadError(
            f"config.json: max_position_embeddings={shape.num_positions} leaves no room for a text: "
            f"its first position is {shape.first_position}"
        )
    return shape


def rename_weight(name: str) -> str | None:
    """Our name of a weight of transformers; None when an encoder has no use for it."""
    name = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
