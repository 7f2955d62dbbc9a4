"""What transformers' config.json and weight names of ModernBERT mean for our encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.models.embedders.config_values import ConfigValues, read_are_local, read_rotary_base
from mlx_agent_llm.models.embedders.modern_encoder import ModernShape

_PREFIX = re.compile(r"^model\.")
_UNUSED = re.compile(r"head\.|decoder\.")
_RENAMED = (
    (re.compile(r"^embeddings\.tok_embeddings\."), "word_embeddings."),
    (re.compile(r"^embeddings\.norm\."), "embeddings_norm."),
    (re.compile(r"\.attn\.Wqkv\."), ".qkv."),
    (re.compile(r"\.attn\.Wo\."), ".attention_out."),
    (re.compile(r"\.attn_norm\."), ".attention_norm."),
    (re.compile(r"\.mlp\.Wi\."), ".up_and_gate."),
    (re.compile(r"\.mlp\.Wo\."), ".down."),
)


def read_shape(config: Mapping[str, Any]) -> ModernShape:
    """The sizes that a config.json names; UnsupportedModelError for a variant that is not computed here."""
    values = ConfigValues(config)
    num_layers = values.size("num_hidden_layers")
    period = config.get("global_attn_every_n_layers", 3)
    return ModernShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=values.size("hidden_size"),
        num_heads=values.heads("num_attention_heads", of=("hidden_size",)),
        intermediate_size=values.size("intermediate_size"),
        max_tokens=values.size("max_position_embeddings"),
        are_local=read_are_local(config, [bool(index % period) for index in range(num_layers)]),
        reach=config.get("local_attention", 128) // 2,
        local_base=read_rotary_base(config, "sliding_attention", "local_rope_theta", 10_000.0),
        global_base=read_rotary_base(config, "full_attention", "global_rope_theta", 160_000.0),
        norm_eps=config.get("norm_eps", 1e-5),
        norm_bias=config.get("norm_bias", False),
        attention_bias=config.get("attention_bias", False),
        mlp_bias=config.get("mlp_bias", False),
        activation=values.activation("hidden_activation"),
    )


def rename_weight(name: str) -> str | None:
    """Our name of a weight; None when an encoder has no use for it."""
    name = _PREFIX.sub("", name)
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
