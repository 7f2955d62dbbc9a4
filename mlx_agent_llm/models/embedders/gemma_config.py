"""What transformers' config.json and weight names of a Gemma 3 that sees both ways mean for our encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.embedders.config_values import ConfigValues, read_are_local, read_rotary_base
from mlx_agent_llm.models.embedders.gemma_encoder import GemmaShape

_PREFIX = re.compile(r"^model\.")
_RENAMED = (
    (re.compile(r"^embed_tokens\."), "word_embeddings."),
    (re.compile(r"^norm\."), "final_norm."),
    (re.compile(r"\.self_attn\.q_proj\."), ".query."),
    (re.compile(r"\.self_attn\.k_proj\."), ".key."),
    (re.compile(r"\.self_attn\.v_proj\."), ".value."),
    (re.compile(r"\.self_attn\.o_proj\."), ".attention_out."),
    (re.compile(r"\.self_attn\.q_norm\."), ".query_norm."),
    (re.compile(r"\.self_attn\.k_norm\."), ".key_norm."),
    (re.compile(r"\.input_layernorm\."), ".before_attention."),
    (re.compile(r"\.post_attention_layernorm\."), ".after_attention."),
    (re.compile(r"\.pre_feedforward_layernorm\."), ".before_mlp."),
    (re.compile(r"\.post_feedforward_layernorm\."), ".after_mlp."),
    (re.compile(r"\.mlp\.(gate|up|down)_proj\."), r".\1."),
)
_VARIANT = {"use_bidirectional_attention": True, "attn_logit_softcapping": None}


def read_shape(config: Mapping[str, Any]) -> GemmaShape:
    """The sizes that a config.json names; UnsupportedModelError for a variant that is not computed here."""
    values = ConfigValues({"use_bidirectional_attention": False} | dict(config))
    values.require(_VARIANT)
    num_heads, num_kv_heads = values.size("num_attention_heads"), values.size("num_key_value_heads")
    if num_heads % num_kv_heads:
        raise ModelLoadError(
            f"config.json: num_attention_heads={num_heads} must be a multiple of num_key_value_heads={num_kv_heads}"
        )
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    return GemmaShape(
        vocab_size=values.size("vocab_size"),
        hidden_size=values.size("hidden_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=values.size("head_dim"),
        intermediate_size=values.size("intermediate_size"),
        max_tokens=values.size("max_position_embeddings"),
        are_local=read_are_local(
            config, [bool((index + 1) % period) for index in range(values.size("num_hidden_layers"))]
        ),
        reach=values.size("sliding_window") // 2,
        local_base=read_rotary_base(config, "sliding_attention", "rope_local_base_freq", 10_000.0),
        global_base=read_rotary_base(config, "full_attention", "rope_theta", 1_000_000.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        query_scalar=values.size("query_pre_attn_scalar"),
        attention_bias=config.get("attention_bias", False),
        activation=values.activation("hidden_activation"),
    )


def rename_weight(name: str) -> str | None:
    """Our name of a weight; None of a head's."""
    if name == "lm_head.weight":
        return None
    name = _PREFIX.sub("", name)
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
