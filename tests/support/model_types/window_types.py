"""Model types with layers that see the last tokens alone, or keys of other layers."""

from __future__ import annotations

from tests.support.model_types.dimensions import WINDOW, smallest_head_dim
from tests.support.model_types.parts import LLAMA4_SCALING, SLIDING_AND_FULL, TWO_ROPES, YARN, Config


def window_types() -> dict[str, Config]:
    """What each has beside the common dimensions."""
    head_dim = smallest_head_dim()
    ministral3 = {
        "layer_types": SLIDING_AND_FULL,
        "rope_parameters": LLAMA4_SCALING,
    }
    gemma3 = {"sliding_window_pattern": 2, "query_pre_attn_scalar": head_dim}
    gemma4 = {
        "layer_types": SLIDING_AND_FULL + SLIDING_AND_FULL[:2],
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 128,
        "global_head_dim": 2 * head_dim,
        "top_k_experts": 2,
        "rope_parameters": None,
    }
    gemma3n = gemma4 | {
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.9, 0.9, 0, 0, 0, 0],
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": head_dim,
        "rope_local_base_freq": 10_000.0,
        "intermediate_size": [48] * 6,
    }
    return {
        "afmoe": {"layer_types": SLIDING_AND_FULL, "num_dense_layers": 1},
        "cohere2": {"sliding_window_pattern": 2},
        "deepseek_v41": {"head_dim": 2 * head_dim, "o_groups": 2, "o_lora_rank": 8, "hc_mult": 2}
        | {"compress_ratios": [0, 4, 0, 4]},
        "exaone4": {"sliding_window_pattern": "LG"},
        "exaone_moe": {"layer_types": SLIDING_AND_FULL, "is_moe_layer": [False, True, True, True]},
        "gemma3": {"text_config": gemma3},
        "gemma3_text": gemma3,
        "gemma3n": {"text_config": gemma3n},
        "gemma4": {"text_config": gemma4 | {"model_type": "gemma4_text"}},
        "gemma4_text": gemma4 | {"enable_moe_block": True},
        "gpt_oss": {"layer_types": SLIDING_AND_FULL, "rope_scaling": YARN},
        "iquestloopcoder": {"loop_window_size": WINDOW},
        "laguna": {
            "layer_types": SLIDING_AND_FULL,
            "rope_parameters": TWO_ROPES,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        "llama": {"layer_types": SLIDING_AND_FULL},
        "llama4": {
            "text_config": {
                "intermediate_size_mlp": 48,
                "attention_chunk_size": WINDOW,
                "interleave_moe_layer_step": 2,
                "num_experts_per_tok": 1,
            }
        },
        "llama4_text": {"intermediate_size_mlp": 48, "no_rope_layers": [1, 0, 1, 0]},
        "mellum": {"layer_types": SLIDING_AND_FULL, "rope_parameters": TWO_ROPES},
        "mimo_v2_flash": {
            "hybrid_layer_pattern": [0, 1, 0, 1],
            "moe_layer_freq": [0, 1, 1, 1],
            "add_swa_attention_sink_bias": True,
            "add_full_attention_sink_bias": False,
            "sliding_window_size": WINDOW,
            "layernorm_epsilon": 1e-5,
            "swa_rope_theta": 5_000.0,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 1,
            "head_dim": 2 * head_dim,
            "v_head_dim": head_dim,
            "swa_head_dim": 2 * head_dim,
            "swa_v_head_dim": head_dim,
        },
        "ministral3": ministral3,
        "mistral3": {"text_config": ministral3 | {"model_type": "ministral3"}},
        "muse_glimmer": {"layer_types": SLIDING_AND_FULL},
        "muse_spark": {
            "text_config": {
                "post_norm_eps": 1e-6,
                "num_shared_experts": 0,
                "rope_parameters": {"rope_theta": 10_000.0},
                "layer_rope_theta": [10_000.0, 0, 10_000.0, 0],
                "layer_types": SLIDING_AND_FULL,
                "final_logit_softcapping": 20.0,
                "output_multiplier": 0.5,
                "moe_hidden_size": 16,
            }
        },
        "olmo3": {"layer_types": SLIDING_AND_FULL},
        "pixtral": {"text_config": {"model_type": "llama", "layer_types": SLIDING_AND_FULL}},
        "plamo3": {"window_size": WINDOW, "sliding_window_pattern": 2},
        "smollm3": {"layer_types": SLIDING_AND_FULL, "no_rope_layer_interval": 2},
        "spark2_5": {"layer_types": SLIDING_AND_FULL, "rope_parameters": TWO_ROPES},
        "step3p5": {
            "layer_types": SLIDING_AND_FULL,
            "num_attention_groups": 2,
            "attention_other_setting": {
                "num_attention_heads": 4,
                "num_attention_groups": 2,
                "attention_type": "sliding_attention",
            },
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "share_expert_dim": 16,
            "moe_layers_enum": "1,2,3",
            "partial_rotary_factors": [1.0, 0.5] * 2,
        },
    }
