"""The table of mlx-lm's model types: for each what its tiny model has beside the common dimensions.

Several layers of each kind that a type has; windows are shorter than what is computed.
"""

from __future__ import annotations

from typing import Any

from tests.support.model_types.dimensions import WINDOW, common, smallest_head_dim

Config = dict[str, Any]


def config_of(model_type: str) -> Config:
    """The configuration of a type's tiny model."""
    own = own_configs()[model_type]
    if "text_config" in own:
        text = common() | {"model_type": own["text_config"].get("model_type", model_type)}
        own = own | {"text_config": text | own["text_config"]}
    return common() | {"model_type": model_type} | own


_TYPES = ["sliding_attention", "full_attention"] * 2
_ROPE = {"rope_theta": 10_000.0, "rope_type": "default"}
_TWO_ROPES = {
    "full_attention": _ROPE | {"partial_rotary_factor": 0.5},
    "sliding_attention": _ROPE | {"rope_theta": 5_000.0, "partial_rotary_factor": 1.0},
}
_YARN = {
    "type": "yarn",
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}


def own_configs() -> dict[str, Config]:
    """What each type has beside the common dimensions."""
    head_dim = smallest_head_dim()
    width, half, quarter = 4 * head_dim, head_dim // 2, head_dim // 4
    granite = {
        "logits_scaling": 1.0,
        "attention_multiplier": head_dim**-0.5,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
    }
    minicpm = {"dim_model_base": width // 2, "scale_depth": 1.4, "scale_emb": 4.0}
    longcat = {
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
        "rope_parameters": _ROPE
        | {"type": "default", "partial_rotary_factor": 0.5, "mrope_section": [quarter // 2, quarter // 2, 0]},
    }
    ministral3 = {
        "layer_types": _TYPES,
        "rope_parameters": {
            "rope_theta": 10_000.0,
            "type": "default",
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 32,
        },
    }
    lfm2 = {
        "block_dim": width,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 48,
        "layer_types": ["conv", "full_attention"] * 2,
    }
    gemma3 = {"sliding_window_pattern": 2, "query_pre_attn_scalar": head_dim}
    # Their last two layers read the keys of layers before them.
    gemma4 = {
        "layer_types": _TYPES + _TYPES[:2],
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
        "Klear": {},
        "afm7": {"hidden_dim": width, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 4, "num_kv_heads": 2},
        "afmoe": {"layer_types": _TYPES, "num_dense_layers": 1},
        "apertus": {"post_norm": False, "qk_norm": True},
        "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
        "bailing_hybrid": {},
        "bailing_moe": {},
        "bailing_moe_linear": {},
        "bailing_moe_v3": {},
        "bitnet": {},
        "cohere": {},
        "cohere2": {"sliding_window_pattern": 2},
        "dbrx": {
            "d_model": width,
            "n_layers": 3,
            "n_heads": 4,
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        },
        "deepseek": {},
        "deepseek_v2": {"rope_scaling": _YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}, "topk_method": "greedy"},
        "deepseek_v3": {},
        "deepseek_v32": {},
        "deepseek_v41": {"head_dim": 2 * head_dim, "o_groups": 2, "o_lora_rank": 8, "hc_mult": 2}
        | {"compress_ratios": [0, 4, 0, 4]},
        "dots1": {},
        "ernie4_5": {},
        "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1, "moe_num_shared_experts": 1},
        "exaone": {},
        "exaone4": {"sliding_window_pattern": "LG"},
        "exaone_moe": {"layer_types": _TYPES, "is_moe_layer": [False, True, True, True]},
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
        "gemma": {},
        "gemma2": {"query_pre_attn_scalar": float(head_dim), "attn_logit_softcapping": 5.0},
        "gemma3": {"text_config": gemma3},
        "gemma3_text": gemma3,
        "gemma3n": {"text_config": gemma3n},
        "gemma4": {"text_config": gemma4 | {"model_type": "gemma4_text"}},
        "gemma4_text": gemma4 | {"enable_moe_block": True},
        "glm": {},
        "glm4": {},
        "glm4_moe": {},
        "glm4_moe_lite": {},
        "glm_moe_dsa": {"rope_parameters": _ROPE},
        "gpt2": {},
        "gpt_bigcode": {},
        "gpt_neox": {"rotary_emb_base": 10_000, "rotary_pct": 0.5},
        "gpt_oss": {"layer_types": _TYPES, "rope_scaling": _YARN},
        "gptj": {"rotary_dim": half},
        "granite": granite,
        "granitemoe": granite,
        "granitemoehybrid": granite
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
        "helium": {},
        "hunyuan": {
            "moe_topk": 2,
            "num_shared_expert": 1,
            "use_mixed_mlp_moe": True,
            "use_cla": True,
            "cla_share_factor": 2,
            "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
        },
        "hunyuan_v1_dense": {"rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
        "internlm2": {},
        "internlm3": {},
        "iquestloopcoder": {"loop_window_size": WINDOW},
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
        "kimi_k25": {"text_config": {"model_type": "deepseek_v3"}},
        "kimi_k3": {"text_config": kimi_linear | {"model_type": "kimi_linear"}},
        "kimi_linear": kimi_linear,
        "kimi_vl": {"text_config": {"model_type": "deepseek_v3"}},
        "laguna": {
            "layer_types": _TYPES,
            "rope_parameters": _TWO_ROPES,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        "lfm2": lfm2,
        "lfm2-vl": {"text_config": lfm2 | {"model_type": "lfm2"}},
        "lfm2_moe": {"use_expert_bias": True, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2},
        "lille-130m": {"block_size": 512, "n_kv_heads": 2, "n_embd": max(width, 96)},
        "llama": {"layer_types": _TYPES},
        "llama4": {
            "text_config": {
                "intermediate_size_mlp": 48,
                "attention_chunk_size": WINDOW,
                "interleave_moe_layer_step": 2,
                "num_experts_per_tok": 1,
            }
        },
        "llama4_text": {"intermediate_size_mlp": 48, "no_rope_layers": [1, 0, 1, 0]},
        "longcat_flash": longcat,
        "longcat_flash_ngram": longcat | {"ngram_vocab_size_ratio": 2, "emb_neighbor_num": 3, "emb_split_num": 2},
        "mamba": {},
        "mamba2": {"num_heads": 8, "head_dim": width // 4, "time_step_limit": [0.0, 100.0]},
        "mellum": {"layer_types": _TYPES, "rope_parameters": _TWO_ROPES},
        "mimo": {},
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
        "minicpm": minicpm,
        "minicpm3": minicpm
        | {
            "rope_scaling": {
                "type": "longrope",
                "original_max_position_embeddings": 64,
                "long_factor": [1.5] * quarter,
                "short_factor": [1.0] * quarter,
            }
        },
        "minimax": {"shared_intermediate_size": 16, "rotary_dim": half},
        "minimax_m3_vl": {
            "text_config": {
                "moe_layer_freq": [0, 1, 1, 1],
                "shared_intermediate_size": 16,
                "dense_intermediate_size": 48,
                "sparse_attention_config": {
                    "sparse_num_index_heads": 2,
                    "sparse_index_dim": head_dim,
                    "sparse_block_size": 4,
                    "sparse_topk_blocks": 3,
                    "sparse_local_block": 1,
                    "sparse_attention_freq": [0, 1, 1, 0],
                },
            }
        },
        "ministral3": ministral3,
        "mistral3": {"text_config": ministral3 | {"model_type": "ministral3"}},
        "mistral4": {"rope_parameters": ministral3["rope_parameters"]},
        "mixtral": {},
        "muse_glimmer": {"layer_types": _TYPES},
        "muse_spark": {
            "text_config": {
                "post_norm_eps": 1e-6,
                "num_shared_experts": 0,
                "rope_parameters": {"rope_theta": 10_000.0},
                "layer_rope_theta": [10_000.0, 0, 10_000.0, 0],
                "layer_types": _TYPES,
                "final_logit_softcapping": 20.0,
                "output_multiplier": 0.5,
                "moe_hidden_size": 16,
            }
        },
        "nanbeige": {"num_loops": 2},
        "nanochat": {},
        "nemotron": {"hidden_act": "relu2"},
        "nemotron-nas": {
            "block_configs": [
                {"attention": _nas_attention(2), "ffn": _nas_ffn(1.5)},
                {"attention": _nas_attention(no_op=True), "ffn": _nas_ffn(1.5)},
                {"attention": _nas_attention(replace_with_linear=True), "ffn": _nas_ffn(replace_with_linear=True)},
                {"attention": _nas_attention(4), "ffn": _nas_ffn(no_op=True)},
            ]
        },
        "nemotron_h": {
            "hybrid_override_pattern": "M*-EM*",
            "num_hidden_layers": 6,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "mamba_proj_bias": False,
            "time_step_limit": [0.0, 100.0],
        },
        "olmo2": {},
        "olmo3": {"layer_types": _TYPES},
        "olmo_hybrid": {
            "linear_allow_neg_eigval": True,
            "layer_types": ["linear_attention", "full_attention"] * 2,
        },
        "olmoe": {},
        "openelm": {
            "num_transformer_layers": 3,
            "model_dim": width,
            "ffn_dim_divisor": 8,
            "num_query_heads": [4, 4, 2],
            "num_kv_heads": [2, 2, 1],
            "ffn_multipliers": [1.0, 1.5, 2.0],
        },
        "phi": {},
        "phi3": {},
        "phi3small": {
            "dense_attention_every_n_layers": 2,
            "ff_intermediate_size": 48,
            "gegelu_limit": 20.0,
            "blocksparse_block_size": 32,
            "blocksparse_num_local_blocks": 1,
            "blocksparse_vert_stride": 2,
        },
        "phimoe": {
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.5] * half,
                "short_factor": [1.0] * half,
                "long_mscale": 1.2,
                "short_mscale": 1.0,
            }
        },
        "phixtral": {"num_vocab": 128, "model_dim": width, "num_heads": 4, "num_layers": 3, "rotary_dim": half},
        "pixtral": {"text_config": {"model_type": "llama", "layer_types": _TYPES}},
        "plamo": {"n_shared_head": 2},
        "plamo2": {
            "hidden_size_per_head": head_dim,
            "attention_window_size": WINDOW,
            "full_attention_idx": [],
            "mamba_d_state": 8,
            "mamba_num_heads": 4,
            "mamba_chunk_size": 16,
        },
        "plamo3": {"window_size": WINDOW, "sliding_window_pattern": 2},
        "prism_hadamard_qwen35": {
            "schema_version": 1,
            "tensor_namespace": "mlx-lm-text",
            "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
            "modules": [{"path": "model.layers.0.mlp.gate_proj", "embedding": False, "dtype": "float16", "block": 0}],
            "text_config": qwen35 | {"hidden_size": 128, "num_experts": 0},
        },
        "qwen": {"kv_channels": head_dim},
        "qwen2": {},
        "qwen2_moe": {},
        "qwen2_vl": {"text_config": {"model_type": "qwen2"}},
        "qwen3": {},
        "qwen3_5": {"text_config": qwen35 | {"num_experts": 0}},
        "qwen3_5_moe": {"text_config": qwen35 | {"model_type": "qwen3_5_moe"}},
        "qwen3_moe": {},
        "qwen3_next": {"full_attention_interval": 2},
        "qwen3_vl": {"text_config": {"model_type": "qwen3"}},
        "qwen3_vl_moe": {"text_config": {"model_type": "qwen3_moe"}},
        "recurrent_gemma": {
            "block_types": ["recurrent", "attention"],
            "conv1d_width": 4,
            "logits_soft_cap": 30.0,
            "attention_window_size": WINDOW,
            "num_key_value_heads": 1,
        },
        "rwkv7": {"a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8, "decay_low_rank_dim": 8},
        "seed_oss": {},
        "smollm3": {"layer_types": _TYPES, "no_rope_layer_interval": 2},
        "solar_open": {},
        "spark2_5": {"layer_types": _TYPES, "rope_parameters": _TWO_ROPES},
        "stablelm": {"use_qkv_bias": True},
        "starcoder2": {},
        "step3p5": {
            "layer_types": _TYPES,
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
        "talkie": {},
        "telechat3": {},
        "youtu_llm": {},
    }


def _nas_attention(heads_in_group: int | None = None, **flags: bool) -> Config:
    return {"n_heads_in_group": heads_in_group, "no_op": False, "replace_with_linear": False} | flags


def _nas_ffn(multiplier: float | None = None, **flags: bool) -> Config:
    return {"ffn_mult": multiplier, "no_op": False, "replace_with_linear": False} | flags
