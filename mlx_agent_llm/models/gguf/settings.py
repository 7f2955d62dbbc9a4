"""The metadata of a GGUF file as the arguments of mlx-lm's models, one function an architecture.

A value that mlx-lm's model has no place for is refused, unless it is the one that the model computes with anyway.
"""

from __future__ import annotations

from typing import Any

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.gguf.metadata import Metadata

Settings = dict[str, Any]

_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62
_GEMMA3_PATTERN = 6  # every sixth layer attends to everything


def llama(data: Metadata) -> Settings:
    """Llama, and what has its form: Mistral, Yi, SmolLM2 and others."""
    return _shape(data) | {
        "rope_scaling": _rope_scaling(data),
        "tie_word_embeddings": _is_tied(data),
        "attention_bias": data.has_tensor("blk.0.attn_q.bias"),
    }


def smollm3(data: Metadata) -> Settings:
    """SmolLM3: every fourth layer does not rotate."""
    return llama(data) | {"no_rope_layer_interval": 4}


def mistral3(data: Metadata) -> Settings:
    """Ministral 3, whose queries grow with their position."""
    rope = _rope_scaling(data) or {"rope_type": "default"}
    beta = data.positive("attention.temperature_scale", 0.0)
    if beta and "original_max_position_embeddings" not in rope:
        raise ModelLoadError(
            f"{data.gguf.path}: the metadata has no {data.key('rope.scaling.original_context_length')}"
        )
    shape = _shape(data)
    rope |= {"rope_theta": shape.pop("rope_theta"), "llama_4_scaling_beta": beta}
    rope.setdefault("original_max_position_embeddings", shape["max_position_embeddings"])
    data.only("attention.temperature_length", rope["original_max_position_embeddings"])
    return shape | {"rope_parameters": rope, "tie_word_embeddings": _is_tied(data)}


def granite(data: Metadata) -> Settings:
    """Granite 3 and the dense ones of Granite 4, with four factors of their own."""
    return llama(data) | {
        "mlp_bias": data.has_tensor("blk.0.ffn_up.bias"),
        "attention_multiplier": data.positive("attention.scale"),
        "embedding_multiplier": data.positive("embedding_scale"),
        "residual_multiplier": data.positive("residual_scale"),
        "logits_scaling": data.positive("logit_scale"),
    }


def qwen2(data: Metadata) -> Settings:
    """Qwen2 and Qwen2.5."""
    return _shape(data) | {"rope_scaling": _rope_scaling(data), "tie_word_embeddings": _is_tied(data)}


def qwen3(data: Metadata) -> Settings:
    """Qwen3."""
    return qwen2(data)


def qwen3moe(data: Metadata) -> Settings:
    """Qwen3 with experts in every layer."""
    data.only("expert_shared_count", 0)
    data.only("expert_weights_scale", 1.0, 0.0)
    _refuse_rope_scaling(data)
    return _shape(data, has_dense=False) | {
        "tie_word_embeddings": _is_tied(data),
        "intermediate_size": 1,  # of dense layers, which there are none of
        "moe_intermediate_size": data.size("expert_feed_forward_length"),
        "num_experts": data.size("expert_count"),
        "num_experts_per_tok": data.size("expert_used_count"),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


def qwen35(data: Metadata) -> Settings:
    """Qwen3.5: three gated delta nets to each layer of attention."""
    data.gguf.require(data.key("rope.dimension_sections"), list)
    data.sizes("rope.dimension_sections", 4)  # of positions in images: those of text are all the same
    interval = data.size("full_attention_interval", 4)
    num_values = data.size("ssm.time_step_rank")
    settings = _shape(data, partial_rotation=True)
    rotary = settings.pop("rotary_dim") / settings["head_dim"]
    num_layers = settings["num_hidden_layers"]
    data.only("attention.recurrent_layers", [(index + 1) % interval != 0 for index in range(num_layers)])
    return settings | {
        "model_type": "qwen3_5",
        "full_attention_interval": interval,
        "tie_word_embeddings": _is_tied(data),
        "linear_num_value_heads": num_values,
        "linear_num_key_heads": data.size("ssm.group_count"),
        "linear_key_head_dim": data.size("ssm.state_size"),
        "linear_value_head_dim": data.size("ssm.inner_size") // num_values,
        "linear_conv_kernel_dim": data.size("ssm.conv_kernel"),
        "rope_parameters": {
            "type": "default",
            "rope_theta": settings["rope_theta"],
            "partial_rotary_factor": rotary,
        },
    }


def gemma2(data: Metadata) -> Settings:
    """Gemma 2; mlx-lm's model has no windows, so that texts end where the first window does."""
    shape = _shape(data)
    shape["max_position_embeddings"] = min(
        shape["max_position_embeddings"], data.size("attention.sliding_window", 4096)
    )
    return shape | {
        "attn_logit_softcapping": data.positive("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": data.positive("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(shape, _GEMMA2_27B_LAYERS),
    }


def gemma3(data: Metadata) -> Settings:
    """Gemma 3, its text."""
    shape = _shape(data, rope_base=1e6)
    data.only("attention.sliding_window_pattern", _GEMMA3_PATTERN)
    return shape | {
        "rope_scaling": _rope_scaling(data),
        "rope_local_base_freq": data.positive("rope.freq_base_swa", 1e4),
        "sliding_window": data.size("attention.sliding_window"),
        "sliding_window_pattern": _GEMMA3_PATTERN,
        "query_pre_attn_scalar": _query_scale(shape, _GEMMA3_27B_LAYERS),
    }


def _query_scale(shape: Settings, num_layers_of_27b: int) -> int:
    """The metadata does not say by what queries are divided; only the models of 27B differ from the others."""
    if shape["num_hidden_layers"] == num_layers_of_27b:
        return int(shape["hidden_size"]) // int(shape["num_attention_heads"])
    return int(shape["head_dim"])


def phi3(data: Metadata) -> Settings:
    """Phi-3 and Phi-4; mlx-lm's model has no windows, so that texts end where the first window does."""
    shape = _shape(data, partial_rotation=True)
    rotary_dim, head_dim = shape.pop("rotary_dim"), shape.pop("head_dim")
    if head_dim * shape["num_attention_heads"] != shape["hidden_size"]:
        raise UnsupportedModelError(f"{data.gguf.path}: heads of {head_dim} do not add up to {shape['hidden_size']}")
    context = shape["max_position_embeddings"]
    original = data.size("rope.scaling.original_context_length", context)
    long, short = (data.take_floats(f"rope_factors_{kind}.weight", rotary_dim // 2) for kind in ("long", "short"))
    scaling = None if long is None else {"type": "longrope", "long_factor": long, "short_factor": short}
    if scaling is None:
        _refuse_rope_scaling(data)
    else:
        data.only("rope.scaling.type", "longrope")
    data.positive("rope.scaling.attn_factor", 1.0)  # follows from the two lengths of the context
    return shape | {
        "max_position_embeddings": context,
        "max_model_len": min(context, data.size("attention.sliding_window", context)),
        "original_max_position_embeddings": original,
        "partial_rotary_factor": rotary_dim / head_dim,
        "rope_scaling": scaling,
        "tie_word_embeddings": _is_tied(data),
    }


def gpt_oss(data: Metadata) -> Settings:
    """The open models of OpenAI."""
    return _shape(data, has_dense=False) | {
        "rope_scaling": _rope_scaling(data),
        "sliding_window": data.size("attention.sliding_window"),
        "intermediate_size": data.size("expert_feed_forward_length"),
        "num_local_experts": data.size("expert_count"),
        "num_experts_per_tok": data.size("expert_used_count"),
    }


def lfm2(data: Metadata) -> Settings:
    """LFM2: short convolutions where a layer has no heads of keys."""
    num_layers = data.size("block_count")
    heads = data.sizes("attention.head_count_kv", num_layers)
    kinds = set(heads) - {0}
    if len(kinds) != 1:
        raise UnsupportedModelError(
            f"{data.gguf.path}: {data.key('attention.head_count_kv')}={heads} must have one number"
        )
    shape = _shape(data, num_kv_heads=kinds.pop())
    data.only("attention.sliding_window", 0)
    _refuse_rope_scaling(data)
    return shape | {
        "norm_eps": shape["rms_norm_eps"],
        "conv_bias": data.has_tensor(f"blk.{heads.index(0)}.shortconv.in_proj.bias") if 0 in heads else False,
        "conv_L_cache": data.size("shortconv.l_cache"),
        "block_dim": shape["hidden_size"],
        "block_multiple_of": 1,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": shape["intermediate_size"],
        "full_attn_idxs": [index for index, count in enumerate(heads) if count],
    }


def _shape(
    data: Metadata,
    *,
    rope_base: float = 10000.0,
    has_dense: bool = True,
    num_kv_heads: int | None = None,
    partial_rotation: bool = False,
) -> Settings:
    """What all have: sizes, heads, norms and the base of the rotation."""
    hidden_size, num_heads = data.size("embedding_length"), data.size("attention.head_count")
    head_dim = data.size("attention.key_length", max(1, hidden_size // num_heads))
    data.only("attention.value_length", head_dim)
    rotary_dim = data.size("rope.dimension_count", head_dim)
    if not partial_rotation:
        data.only("rope.dimension_count", head_dim)
    num_kv_heads = num_kv_heads or data.size("attention.head_count_kv", num_heads)
    if num_heads % num_kv_heads or head_dim % 2 or rotary_dim % 2 or rotary_dim > head_dim:
        raise ModelLoadError(
            f"{data.gguf.path}: {num_heads} heads of {head_dim} with {num_kv_heads} KV heads do not fit"
        )
    settings: Settings = {
        "hidden_size": hidden_size,
        "num_hidden_layers": data.size("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": data.positive("attention.layer_norm_rms_epsilon"),
        "vocab_size": _vocab_size(data),
        "max_position_embeddings": data.size("context_length"),
        "rope_theta": data.positive("rope.freq_base", rope_base),
    }
    inner_size = data.size("feed_forward_length", None if has_dense else 1)
    settings |= {"intermediate_size": inner_size} if has_dense else {}
    return settings | ({"rotary_dim": rotary_dim} if partial_rotation else {})


def _vocab_size(data: Metadata) -> int:
    """The rows of the embedding: the metadata's vocab_size may leave padding out."""
    embedding = data.gguf.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelLoadError(f"{data.gguf.path}: the tensor 'token_embd.weight' is missing")
    return embedding.shape[0]


def _is_tied(data: Metadata) -> bool:
    return not data.has_tensor("output.weight")


def _rope_scaling(data: Metadata) -> Settings | None:
    factor = data.positive("rope.scaling.factor", 1.0)
    kind = data.text("rope.scaling.type") or "linear"
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return {"type": kind, "rope_type": kind, "factor": factor}
    if kind == "yarn":
        return _yarn(data, factor)
    raise UnsupportedModelError(
        f"{data.gguf.path}: {data.key('rope.scaling.type')}={kind!r} is not supported: 'none', 'linear' and 'yarn' are"
    )


def _yarn(data: Metadata, factor: float) -> Settings:
    """The scale of attention follows from the factor, unless the file has the two multipliers of Mistral."""
    data.only("rope.scaling.yarn_ext_factor", 1.0)
    data.only("rope.scaling.yarn_attn_factor", 1.0)
    data.only("rope.scaling.attn_factor", 1.0)
    settings: Settings = {
        "type": "yarn",
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": data.size("rope.scaling.original_context_length"),
        "beta_fast": data.positive("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": data.positive("rope.scaling.yarn_beta_slow", 1.0),
    }
    if data.has("rope.scaling.yarn_log_multiplier"):
        settings["mscale_all_dim"] = data.positive("rope.scaling.yarn_log_multiplier", 0.0)
    return settings


def _refuse_rope_scaling(data: Metadata) -> None:
    if _rope_scaling(data) is not None:
        raise UnsupportedModelError(f"{data.gguf.path}: {data.key('rope.scaling.type')} is not supported here")
