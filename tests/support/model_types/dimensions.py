"""The dimensions that tiny models have in common, by each name that a configuration of mlx-lm calls them."""

from __future__ import annotations

from typing import Any

from mlx_agent_kernels import backend

VOCAB_SIZE = 128
CONTEXT = 512
WINDOW = 12


def smallest_head_dim() -> int:
    """The kernels of a GPU serve heads from 64 on, and a CPU is quicker with 8."""
    return 8 if backend() == "reference" else 64


def common() -> dict[str, Any]:
    """A model of four layers, four heads and four experts; a type's class takes the names that it knows."""
    head_dim = smallest_head_dim()
    width = 4 * head_dim
    return {
        **dict.fromkeys(("hidden_size", "n_embd"), width),
        **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer"), 4),
        **dict.fromkeys(("num_attention_heads", "n_head"), 4),
        **dict.fromkeys(("intermediate_size", "n_inner"), 48),
        **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), CONTEXT),
        **dict.fromkeys(("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 1e-5),
        **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias", "bias", "tie_word_embeddings"), False),
        "head_dim": head_dim,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB_SIZE,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "partial_rotary_factor": 0.5,
        "sliding_window": WINDOW,
        "use_qk_norm": True,
        **_experts(),
        **_latents(head_dim),
        **_states(head_dim),
    }


def _experts() -> dict[str, Any]:
    return {
        **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 4),
        **dict.fromkeys(("n_shared_experts", "num_shared_experts", "first_k_dense_replace"), 1),
        **dict.fromkeys(("n_group", "topk_group", "moe_layer_freq", "decoder_sparse_step"), 1),
        **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
        "moe_shared_expert_intermediate_size": 16,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "mlp_only_layers": [],
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def _latents(head_dim: int) -> dict[str, Any]:
    """The latent, its rotary part and the indexer that chooses what is attended to: fewer keys than are computed."""
    return {
        "kv_lora_rank": 2 * head_dim,
        "q_lora_rank": 24,
        "qk_rope_head_dim": head_dim // 2,
        "qk_nope_head_dim": head_dim,
        "v_head_dim": head_dim,
        "index_head_dim": head_dim,
        "index_n_heads": 2,
        "index_topk": 16,
    }


def _states(head_dim: int) -> dict[str, Any]:
    return {
        "conv_kernel": 4,
        "conv_L_cache": 3,
        "conv_bias": False,
        "use_conv_bias": True,
        "n_groups": 2,
        "state_size": 8,
        "ssm_state_size": 8,
        "time_step_rank": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": head_dim,
        "linear_value_head_dim": head_dim,
        "linear_conv_kernel_dim": 4,
        "layer_group_size": 2,
        "group_norm_size": 1,
    }
