"""What the config.json and weight names of nomic-bert mean for our encoder, by its makers' names or transformers'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.errors import UnsupportedModelError
from mlx_agent_llm.models.embedders.config_values import ConfigValues
from mlx_agent_llm.models.embedders.encoder import EncoderShape

_VARIANT = {
    "activation_function": "swiglu",
    "hidden_act": "silu",
    "causal": False,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
    "num_experts": 0,
}
_PREFIX = re.compile(r"^(?:nomic_)?bert\.")
_UNUSED = re.compile(r"pooler\.|cls\.|lm_head\.|embeddings\.(?:position|token_type)_ids|.*\.inv_freq")
_RENAMED = (
    (re.compile(r"^(?:emb_ln|embeddings\.LayerNorm)\."), "embeddings_norm."),
    (re.compile(r"^embeddings\."), ""),
    (re.compile(r"^encoder\.layers\."), "layers."),
    (re.compile(r"\.self_attn\.q_proj\."), ".query."),
    (re.compile(r"\.self_attn\.k_proj\."), ".key."),
    (re.compile(r"\.self_attn\.v_proj\."), ".value."),
    (re.compile(r"\.(?:attn\.out_proj|self_attn\.o_proj)\."), ".attention_out."),
    (re.compile(r"\.(?:norm1|post_attention_layernorm)\."), ".attention_norm."),
    (re.compile(r"\.mlp\.(?:fc11|up_proj)\."), ".up."),
    (re.compile(r"\.mlp\.(?:fc12|gate_proj)\."), ".gate."),
    (re.compile(r"\.mlp\.(?:fc2|down_proj)\."), ".down."),
    (re.compile(r"\.(?:norm2|post_mlp_layernorm)\."), ".output_norm."),
)


def read_shape(config: Mapping[str, Any]) -> EncoderShape:
    """The sizes that a config.json names; UnsupportedModelError for a variant that is not computed here."""
    values = ConfigValues(config)
    values.require(_VARIANT)
    return EncoderShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=values.size("hidden_size", "n_embd"),
        num_layers=values.size("num_hidden_layers", "n_layer"),
        num_heads=values.heads("num_attention_heads", "n_head", of=("hidden_size", "n_embd")),
        intermediate_size=values.size("intermediate_size", "n_inner"),
        num_positions=values.size("max_position_embeddings", "max_trained_positions", "n_positions"),
        first_position=0,
        num_token_types=values.size("type_vocab_size"),
        num_position_buckets=0,
        norm_eps=config.get("layer_norm_eps", config.get("layer_norm_epsilon", 1e-12)),
        activation="silu",
        rotary_base=_rotary_base(config),
        is_gated=True,
        has_biases=False,
    )


def rename_weight(name: str) -> str | tuple[str, ...] | None:
    """Our name of a weight; None when an encoder has no use for it."""
    name = _PREFIX.sub("", name)
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    if ".attn.Wqkv." in name:
        return tuple(name.replace("attn.Wqkv", part) for part in ("query", "key", "value"))
    return name


def _rotary_base(config: Mapping[str, Any]) -> float:
    rope = config.get("rope_parameters") or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        raise UnsupportedModelError(f"rope_parameters: rope_type={kind!r} is not supported: only 'default'")
    return float(rope.get("rope_theta", config.get("rotary_emb_base", 1000.0)))
