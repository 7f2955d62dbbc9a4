"""What several model types have in their configurations."""

from __future__ import annotations

from typing import Any

from tests.support.model_types.dimensions import smallest_head_dim

Config = dict[str, Any]

SLIDING_AND_FULL = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_theta": 10_000.0, "rope_type": "default"}
TWO_ROPES = {
    "full_attention": ROPE | {"partial_rotary_factor": 0.5},
    "sliding_attention": ROPE | {"rope_theta": 5_000.0, "partial_rotary_factor": 1.0},
}
YARN = {
    "type": "yarn",
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
LLAMA4_SCALING = {
    "rope_theta": 10_000.0,
    "type": "default",
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 32,
}
LONGCAT: Config = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "ffn_hidden_size": 48,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 16,
    "zero_expert_num": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "num_layers": 2,
}


def granite() -> Config:
    """The factors that Granite scales its parts by."""
    return {
        "logits_scaling": 1.0,
        "attention_multiplier": smallest_head_dim() ** -0.5,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
    }
