"""Model types with recurrent layers."""

from __future__ import annotations

from tests.support.model_types.dimensions import WINDOW, smallest_head_dim
from tests.support.model_types.parts import LONGCAT, ROPE, Config, granite


def state_types() -> dict[str, Config]:
    """What each has beside the common dimensions."""
    head_dim = smallest_head_dim()
    width = 4 * head_dim
    quarter = head_dim // 4
    kimi_linear = {
        "linear_attn_config": {
            "full_attn_layers": [2, 4],
            "kda_layers": [1, 3],
            "num_heads": 4,
            "head_dim": head_dim,
            "short_conv_kernel_size": 4,
        },
        "model_max_length": 512,
        "num_experts_per_token": 2,
    }
    qwen35 = {
        "model_type": "qwen3_5",
        "full_attention_interval": 2,
        "rope_parameters": ROPE
        | {"type": "default", "partial_rotary_factor": 0.5, "mrope_section": [quarter // 2, quarter // 2, 0]},
    }
    lfm2 = {
        "block_dim": width,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 48,
        "layer_types": ["conv", "full_attention"] * 2,
    }
    return {
        "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
        "bailing_hybrid": {},
        "bailing_moe_linear": {},
        "bailing_moe_v3": {},
        "falcon_h1": {
            "num_hidden_layers": 3,
            "mamba_d_conv": 4,
            "mamba_d_head": 8,
            "mamba_d_ssm": 32,
            "mamba_d_state": 8,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_chunk_size": 16,
        },
        "gear": {"layer_types": ["conv_mixer", "sliding_attention", "full_attention", "conv_mixer"]},
        "granitemoehybrid": granite()
        | {
            "layer_types": ["mamba", "attention"] * 2,
            "shared_intermediate_size": 16,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_n_groups": 2,
            "mamba_proj_bias": False,
            "mamba_conv_bias": True,
        },
        "jamba": {
            "attn_layer_offset": 1,
            "attn_layer_period": 2,
            "expert_layer_offset": 1,
            "expert_layer_period": 2,
            "mamba_d_conv": 4,
            "mamba_d_state": 8,
            "mamba_expand": 2,
            "mamba_dt_rank": 4,
        },
        "kimi_k3": {"text_config": kimi_linear | {"model_type": "kimi_linear"}},
        "kimi_linear": kimi_linear,
        "lfm2": lfm2,
        "lfm2-vl": {"text_config": lfm2 | {"model_type": "lfm2"}},
        "lfm2_moe": {"use_expert_bias": True, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2},
        "longcat_flash_ngram": LONGCAT | {"ngram_vocab_size_ratio": 2, "emb_neighbor_num": 3, "emb_split_num": 2},
        "mamba": {},
        "mamba2": {"num_heads": 8, "head_dim": width // 4, "time_step_limit": [0.0, 100.0]},
        "nemotron_h": {
            "hybrid_override_pattern": "M*-EM*",
            "num_hidden_layers": 6,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "mamba_proj_bias": False,
            "time_step_limit": [0.0, 100.0],
        },
        "olmo_hybrid": {
            "linear_allow_neg_eigval": True,
            "layer_types": ["linear_attention", "full_attention"] * 2,
        },
        "plamo2": {
            "hidden_size_per_head": head_dim,
            "attention_window_size": WINDOW,
            "full_attention_idx": [],
            "mamba_d_state": 8,
            "mamba_num_heads": 4,
            "mamba_chunk_size": 16,
        },
        "prism_hadamard_qwen35": {
            "schema_version": 1,
            "tensor_namespace": "mlx-lm-text",
            "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
            "modules": [{"path": "model.layers.0.mlp.gate_proj", "embedding": False, "dtype": "float16", "block": 0}],
            "text_config": qwen35 | {"hidden_size": 128, "num_experts": 0},
        },
        "qwen3_5": {"text_config": qwen35 | {"num_experts": 0}},
        "qwen3_5_moe": {"text_config": qwen35 | {"model_type": "qwen3_5_moe"}},
        "qwen3_next": {"full_attention_interval": 2},
        "recurrent_gemma": {
            "block_types": ["recurrent", "attention"],
            "conv1d_width": 4,
            "logits_soft_cap": 30.0,
            "attention_window_size": WINDOW,
            "num_key_value_heads": 1,
        },
        "rwkv7": {"a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8, "decay_low_rank_dim": 8},
    }
