"""Tiny models with random weights as transformers itself writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig

Rope = Mapping[str, Any]

_COMMON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TIED = {"tie_word_embeddings": True}
_HEADS = {"head_dim": 16}
_WINDOW = _HEADS | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_ROUTED = _EXPERTS | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LATENT = _ROUTED | {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_shared_experts": 1,
}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
# What each type has beside that. Those in SCALED take every kind of scaling, as in transformers so in mlx-lm.
SCALED: dict[str, dict[str, Any]] = {
    "afmoe": {},
    "apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True},
    "deepseek_v3": _LATENT | _HEADS,
    "dots1": _ROUTED | _HEADS | {"n_shared_experts": 1, "routed_scaling_factor": 1.0, "norm_topk_prob": True},
    "gemma3_text": _WINDOW | _TIED | {"query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "glm4_moe_lite": _LATENT | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "gpt_oss": _WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {},
    "llama": {},
    "mistral": {},
    "olmo2": {},
    "qwen2": {},
    "qwen3": _HEADS,
    "qwen3_next": _HEADS | _EXPERTS | _DELTA | {"num_experts": 4, "shared_expert_intermediate_size": 32},
    "seed_oss": _HEADS,
    "smollm3": {},
}
PLAIN: dict[str, dict[str, Any]] = {
    "cohere": _TIED,
    "cohere2": _TIED | _WINDOW | {"sliding_window_pattern": 2},
    "ernie4_5": _HEADS,
    "gemma": _HEADS | _TIED,
    "glm4": _HEADS,
    "glm4_moe": _ROUTED | _HEADS,
    "gpt_neox": {"intermediate_size": 256},
    "helium": _HEADS,
    "hunyuan_v1_dense": _HEADS,
    "lfm2": _TIED | {"block_dim": 64, "layer_types": ["conv", "full_attention"] * 2},
    "mixtral": {"num_local_experts": 4},
    "nemotron": {},
    "phi": {},
    "phi3": {},
    "qwen2_moe": _EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 32},
    "qwen3_moe": _EXPERTS | _HEADS | {"num_experts": 4},
    "stablelm": {},
    "starcoder2": {},
}
# Models of text and images: what their text_config has beside _COMMON.
WRAPPED: dict[str, dict[str, Any]] = {
    "gemma3": _WINDOW | _TIED | {"query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "llama4": _HEADS | {"num_local_experts": 4, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2},
    "llava": {"model_type": "llama"},
    "mistral3": _HEADS | {"model_type": "mistral"},
    "qwen2_vl": {},
    "qwen3_5": _HEADS | _DELTA,
    "qwen3_vl": _HEADS,
}
_MROPE = {
    "qwen2_vl": {"mrope_section": [2, 3, 3]},
    "qwen3_5": {"mrope_section": [1, 1, 2], "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    "qwen3_vl": {"mrope_section": [2, 3, 3]},
}
_VISION = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "image_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "depth", "mlp_ratio"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads"), 2),
    "patch_size": 16,
    "head_dim": 16,
    "out_hidden_size": 64,
}
_VISION_TYPES = {"llava": "clip_vision_model", "mistral3": "pixtral"}
DEFAULT: Rope = {"rope_type": "default", "rope_theta": 5000.0}
LLAMA3: Rope = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN: Rope = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR: Rope = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}


def write_model(folder: Path, model_type: str, rope: Rope, token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Save a model of a type, but for its tokenizer; its own logits of (1, T) token ids, (T, vocab)."""
    make_config = _wrapped_config if model_type in WRAPPED else _config
    config = make_config(model_type, rope)
    torch.manual_seed(0)
    family = AutoModelForImageTextToText if model_type in WRAPPED else AutoModelForCausalLM
    model = family.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
        logits: npt.NDArray[np.float32] = model(input_ids=torch.tensor(token_ids)).logits[0].float().numpy()
    model.save_pretrained(folder)
    if model_type == "gpt_oss":
        _split_experts(folder)
    if model_type in WRAPPED:
        _say_vocabulary(folder)
    return logits


def _config(model_type: str, rope: Rope) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[model_type]
    settings = _COMMON | (SCALED | PLAIN)[model_type]
    own = config_class(**settings).to_dict()["rope_parameters"]
    return config_class(**settings, rope_parameters=_with(own, rope))


def _wrapped_config(model_type: str, rope: Rope) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[model_type]
    text = _COMMON | WRAPPED[model_type]
    vision = _VISION | ({"model_type": _VISION_TYPES[model_type]} if model_type in _VISION_TYPES else {})
    settings = {"vision_config": vision, "tie_word_embeddings": text["tie_word_embeddings"]}
    own = config_class(**settings, text_config=dict(text)).text_config.to_dict()["rope_parameters"]
    own = own | _MROPE.get(model_type, {})
    return config_class(**settings, text_config=text | {"rope_parameters": _with(own, rope)})


def _with(own: Mapping[str, Any], rope: Rope) -> dict[str, Any]:
    """Other rotary settings, where there are two kinds of layers those of the ones that see everything."""
    if "full_attention" in own:
        return {"full_attention": _with(own["full_attention"], rope), "sliding_attention": own["sliding_attention"]}
    return {name: own[name] for name in own if name.startswith(("partial_", "mrope_"))} | dict(rope)


def _say_vocabulary(folder: Path) -> None:
    """Where mlx-lm looks for it: Gemma 3 is published with one size of it, which transformers does not write."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": _COMMON["vocab_size"]}))


def _split_experts(folder: Path) -> None:
    """GPT-OSS is published with packed experts, and mlx-lm reads those of full precision in a form of its own alone."""
    path = folder / "model.safetensors"
    weights: dict[str, mx.array] = {}
    for name, array in mx.load(str(path)).items():  # type: ignore[union-attr]
        stem = name.removesuffix("_bias")
        if ".experts." not in name:
            weights[name] = array
            continue
        kind, array = ("bias", array) if stem != name else ("weight", array.swapaxes(-1, -2))
        if stem.endswith("down_proj"):
            weights[f"{stem}.{kind}"] = array
        else:
            weights[f"{stem.replace('gate_up', 'gate')}.{kind}"] = array[:, ::2]
            weights[f"{stem.replace('gate_up', 'up')}.{kind}"] = array[:, 1::2]
    mx.eval(weights)
    mx.save_safetensors(str(path), weights, metadata={"format": "pt"})
