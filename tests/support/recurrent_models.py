"""Tiny models with recurrent layers, of every kind that mlx-lm has, alone and beside attention."""

from functools import lru_cache
from typing import Any

import mlx.nn as nn

from mlx_agent_llm.testing import tiny_model

_MAMBA_2 = {"conv_kernel": 4, "n_groups": 2, "time_step_limit": (0.001, 0.1)}
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        "num_hidden_layers": 4,
        "full_attention_interval": 2,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 16,
        "mlp_only_layers": [],
        "moe_intermediate_size": 16,
        "partial_rotary_factor": 0.5,
    },
    "mamba": {
        "state_size": 8,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
    },
    "mamba2": {
        **_MAMBA_2,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 8,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": "auto",
    },
    "nemotron_h": {
        **_MAMBA_2,
        "num_hidden_layers": 4,
        "hybrid_override_pattern": ["M", "*", "M", "-"],
        "attention_bias": False,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "mamba_proj_bias": False,
        "ssm_state_size": 8,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "use_conv_bias": True,
    },
    "lfm2": {
        "num_hidden_layers": 4,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 32,
        "block_ff_dim": 64,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3],
    },
    "falcon_h1": {
        "mamba_d_conv": 4,
        "mamba_d_head": 8,
        "mamba_d_ssm": 64,
        "mamba_d_state": 8,
        "mamba_n_groups": 2,
        "mamba_n_heads": 8,
        "mamba_expand": 2,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_rms_norm": False,
        "mamba_norm_before_gate": False,
        "mamba_use_mlp": True,
        "attention_bias": False,
        "mlp_bias": False,
        "projectors_bias": False,
    },
    "rwkv7": {
        "norm_eps": 1e-5,
        "head_dim": 8,
        "a_low_rank_dim": 8,
        "v_low_rank_dim": 8,
        "gate_low_rank_dim": 8,
        "decay_low_rank_dim": 8,
    },
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_dt_rank": 4,
    },
}


@lru_cache
def recurrent_model(model_type: str) -> nn.Module:
    """One of RECURRENT with random weights, always the same ones."""
    return tiny_model(model_type, **RECURRENT[model_type])
