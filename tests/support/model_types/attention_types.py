"""Model types whose layers keep keys and values, or a latent of them, of every token."""

from __future__ import annotations

from tests.support.model_types.dimensions import smallest_head_dim
from tests.support.model_types.parts import LLAMA4_SCALING, LONGCAT, ROPE, YARN, Config, granite


def attention_types() -> dict[str, Config]:
    """What each has beside the common dimensions."""
    head_dim = smallest_head_dim()
    width = 4 * head_dim
    half = head_dim // 2
    quarter = head_dim // 4
    minicpm = {"dim_model_base": width // 2, "scale_depth": 1.4, "scale_emb": 4.0}
    return {
        "Klear": {},
        "afm7": {"hidden_dim": width, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 4, "num_kv_heads": 2},
        "apertus": {"post_norm": False, "qk_norm": True},
        "bailing_moe": {},
        "bitnet": {},
        "cohere": {},
        "dbrx": {
            "d_model": width,
            "n_layers": 3,
            "n_heads": 4,
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        },
        "deepseek": {},
        "deepseek_v2": {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}, "topk_method": "greedy"},
        "deepseek_v3": {},
        "deepseek_v32": {},
        "dots1": {},
        "ernie4_5": {},
        "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1, "moe_num_shared_experts": 1},
        "exaone": {},
        "gemma": {},
        "gemma2": {"query_pre_attn_scalar": float(head_dim), "attn_logit_softcapping": 5.0},
        "glm": {},
        "glm4": {},
        "glm4_moe": {},
        "glm4_moe_lite": {},
        "glm_moe_dsa": {"rope_parameters": ROPE},
        "gpt2": {},
        "gpt_bigcode": {},
        "gpt_neox": {"rotary_emb_base": 10_000, "rotary_pct": 0.5},
        "gptj": {"rotary_dim": half},
        "granite": granite(),
        "granitemoe": granite(),
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
        "kimi_k25": {"text_config": {"model_type": "deepseek_v3"}},
        "kimi_vl": {"text_config": {"model_type": "deepseek_v3"}},
        "lille-130m": {"block_size": 512, "n_kv_heads": 2, "n_embd": max(width, 96)},
        "longcat_flash": LONGCAT,
        "mimo": {},
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
        "mistral4": {"rope_parameters": LLAMA4_SCALING},
        "mixtral": {},
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
        "olmo2": {},
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
        "plamo": {"n_shared_head": 2},
        "qwen": {"kv_channels": head_dim},
        "qwen2": {},
        "qwen2_moe": {},
        "qwen2_vl": {"text_config": {"model_type": "qwen2"}},
        "qwen3": {},
        "qwen3_moe": {},
        "qwen3_vl": {"text_config": {"model_type": "qwen3"}},
        "qwen3_vl_moe": {"text_config": {"model_type": "qwen3_moe"}},
        "seed_oss": {},
        "solar_open": {},
        "stablelm": {"use_qkv_bias": True},
        "starcoder2": {},
        "talkie": {},
        "telechat3": {},
        "youtu_llm": {},
    }


def _nas_attention(heads_in_group: int | None = None, **flags: bool) -> Config:
    return {"n_heads_in_group": heads_in_group, "no_op": False, "replace_with_linear": False} | flags


def _nas_ffn(multiplier: float | None = None, **flags: bool) -> Config:
    return {"ffn_mult": multiplier, "no_op": False, "replace_with_linear": False} | flags
