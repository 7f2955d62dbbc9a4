"""Tiny random models of mlx-lm written as GGUF files, with the names and the writer of the format's own package.

What converters do on the way (fused experts, interleaved rotary halves, norms with one added) is done here again, from
mlx-lm's side, so that a mistake in our tables shows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import utils as mlx_lm_utils

from tests.support import gguf_files as files

Array = npt.NDArray[Any]
Config = dict[str, Any]
LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 4, 64, 96, 4, 2, 16, 128
VOCAB = len(files.byte_vocabulary())
COMMON: Config = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 5000.0,
}


@dataclass(frozen=True)
class Family:
    """How a model of mlx-lm is written: its arguments, the metadata that only it has, and how names and values differ.

    write: adds metadata. names: parts of mlx-lm's names -> parts of Hugging Face's, which GGUF's public table knows.
    change: (name in the file, values, arguments) -> the values in the file.
    """

    architecture: str
    config: Config
    write: Callable[[gguf.GGUFWriter], None] = lambda writer: None
    names: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[str, Array, Config], Array] = lambda name, values, config: values


def interleave(name: str, values: Array, config: Config) -> Array:
    """Put the two halves of each head's rotation side by side, in queries and keys."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if heads is None:
        return values
    return values.reshape(heads, 2, config["head_dim"] // 2, -1).swapaxes(1, 2).reshape(values.shape)


def add_one_to_norms(name: str, values: Array, config: Config) -> Array:
    return values + 1 if name.endswith("norm.weight") else values


def flatten_convolution(name: str, values: Array, config: Config) -> Array:
    return values.squeeze(-1) if "conv" in name and values.ndim == 3 else values


def tile_value_heads(name: str, values: Array, config: Config) -> Array:
    """The first value head of every key head, then the second of each, as converters write gated delta nets."""
    num_keys, width = config["linear_num_key_heads"], config["linear_value_head_dim"]
    part = name.removeprefix("blk.").split(".")[1]
    values = flatten_convolution(name, values, config)
    if part == "ssm_a":
        values = -np.exp(values)
    if part in ("attn_qkv", "ssm_conv1d"):
        start = 2 * num_keys * config["linear_key_head_dim"]
        return np.concatenate([values[:start], _tiled(values[start:], num_keys, width)])
    if part == "ssm_out":
        return _tiled(values.T, num_keys, width).T
    if part in ("attn_gate", "ssm_a", "ssm_dt", "ssm_alpha", "ssm_beta"):
        return _tiled(values, num_keys, width if part == "attn_gate" else 1)
    return values


def _tiled(values: Array, num_keys: int, width: int) -> Array:
    return values.reshape(num_keys, -1, width, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)


def _granite(writer: gguf.GGUFWriter) -> None:
    writer.add_attention_scale(0.2)
    writer.add_embedding_scale(3.0)
    writer.add_residual_scale(0.5)
    writer.add_logit_scale(2.0)


def _yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_rope_scaling_yarn_beta_fast(16.0)
    writer.add_rope_scaling_yarn_beta_slow(1.0)


def _mistral3(writer: gguf.GGUFWriter) -> None:
    _yarn(writer)
    writer.add_rope_scaling_yarn_log_mul(1.0)
    writer.add_attn_temperature_scale(0.1)


def _gpt_oss(writer: gguf.GGUFWriter) -> None:
    _yarn(writer)
    writer.add_sliding_window(8)
    writer.add_expert_feed_forward_length(INNER)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)


def _qwen3moe(writer: gguf.GGUFWriter) -> None:
    writer.add_expert_feed_forward_length(32)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)


def _gemma2(writer: gguf.GGUFWriter) -> None:
    writer.add_attn_logit_softcapping(20.0)
    writer.add_final_logit_softcapping(10.0)
    writer.add_sliding_window(64)


def _gemma3(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(8)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


def _phi3(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_dimension_count(HEAD_DIM // 2)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_rope_scaling_attn_factors(1.18)
    writer.add_tensor("rope_factors_long.weight", np.array(LONG, np.float32))
    writer.add_tensor("rope_factors_short.weight", np.ones(len(LONG), np.float32))


def _lfm2(writer: gguf.GGUFWriter) -> None:
    writer.add_shortconv_l_cache(3)


def _qwen35(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_dimension_count(HEAD_DIM // 4)
    writer.add_rope_dimension_sections([1, 1, 0, 0])
    writer.add_full_attention_interval(2)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_state_size(32)
    writer.add_ssm_group_count(2)
    writer.add_ssm_time_step_rank(4)
    writer.add_ssm_inner_size(4 * 32)


LONG = [1.0, 1.5, 2.0, 4.0]
YARN: Config = {
    "rope_type": "yarn",
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 16.0,
    "beta_slow": 1.0,
}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
_STACKED = {"mlp.switch_mlp": "mlp.experts"}
FAMILIES: Mapping[str, Family] = {
    "llama": Family("LLAMA", COMMON | UNTIED | {"model_type": "llama"}, change=interleave),
    "llama with biases": Family(
        "LLAMA", COMMON | TIED | {"model_type": "llama", "attention_bias": True}, change=interleave
    ),
    "mistral3": Family(
        "MISTRAL3",
        COMMON
        | UNTIED
        | {
            "model_type": "ministral3",
            "rope_parameters": YARN | {"rope_theta": 5000.0, "llama_4_scaling_beta": 0.1, "mscale_all_dim": 1.0},
        },
        _mistral3,
        change=interleave,
    ),
    "smollm3": Family("SMOLLM3", COMMON | TIED | {"model_type": "smollm3"}, change=interleave),
    "granite": Family(
        "GRANITE",
        COMMON
        | TIED
        | {
            "model_type": "granite",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
        },
        _granite,
        change=interleave,
    ),
    "qwen2": Family("QWEN2", COMMON | UNTIED | {"model_type": "qwen2", "rope_scaling": YARN}, _yarn),
    "qwen3": Family("QWEN3", COMMON | TIED | {"model_type": "qwen3"}),
    "qwen3moe": Family(
        "QWEN3MOE",
        COMMON
        | UNTIED
        | {
            "model_type": "qwen3_moe",
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        },
        _qwen3moe,
        _STACKED,
    ),
    "qwen35": Family(
        "QWEN35",
        COMMON
        | UNTIED
        | {
            "model_type": "qwen3_5",
            "full_attention_interval": 2,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "linear_conv_kernel_dim": 4,
            "rope_parameters": {"type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.25},
        },
        _qwen35,
        {"language_model.": "", "dt_bias": "dt_proj.bias"},
        tile_value_heads,
    ),
    "gemma2": Family(
        "GEMMA2",
        COMMON
        | {
            "model_type": "gemma2",
            "attn_logit_softcapping": 20.0,
            "final_logit_softcapping": 10.0,
            "query_pre_attn_scalar": HEAD_DIM,
        },
        _gemma2,
        change=add_one_to_norms,
    ),
    "gemma3": Family(
        "GEMMA3",
        COMMON
        | {
            "model_type": "gemma3_text",
            "num_hidden_layers": 7,
            "sliding_window": 8,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": HEAD_DIM,
            "rope_scaling": {"type": "linear", "factor": 8.0},
        },
        _gemma3,
        change=add_one_to_norms,
    ),
    "phi3": Family(
        "PHI3",
        COMMON
        | UNTIED
        | {
            "model_type": "phi3",
            "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 32,
            "rope_scaling": {"type": "longrope", "long_factor": LONG, "short_factor": [1.0] * len(LONG)},
        },
        _phi3,
    ),
    "gpt-oss": Family(
        "GPT_OSS",
        COMMON
        | {
            "model_type": "gpt_oss",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "rope_scaling": YARN,
        },
        _gpt_oss,
        {"sinks": "sinks.weight"},
    ),
    "lfm2": Family(
        "LFM2",
        COMMON
        | {
            "model_type": "lfm2",
            "norm_eps": 1e-5,
            "conv_bias": False,
            "conv_L_cache": 3,
            "block_dim": HIDDEN,
            "block_ff_dim": INNER,
            "block_multiple_of": 1,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False,
            "full_attn_idxs": [1, 3],
        },
        _lfm2,
        change=flatten_convolution,
    ),
}


def random_model(config: Config) -> nn.Module:
    """A model whose every array is random, norms, biases and sinks too."""
    model_class, args_class = mlx_lm_utils._get_classes(config)
    model: nn.Module = model_class(args_class.from_dict(dict(config)))
    if "tie_word_embeddings" not in config and hasattr(model, "sanitize") and "gpt" not in config["model_type"]:
        model.sanitize({})
    mx.random.seed(11)
    arrays: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    model.update(tree_unflatten([(name, mx.random.normal(array.shape) * 0.2) for name, array in arrays]))
    mx.eval(model.parameters())
    return model


def write_model(
    path: Path, family: Family, model: nn.Module, blocks: Mapping[str, tuple[str, Array]] | None = None
) -> Path:
    """Write the model; blocks: the quantized type and bytes of some tensors, instead of the model's values."""
    architecture = gguf.MODEL_ARCH[family.architecture]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    _write_common(writer, family.config)
    family.write(writer)
    for key, value in files.tokenizer_metadata().items():
        _write_value(writer, key, value)
    for name, values in file_tensors(family, model):
        kind, raw = (blocks or {}).get(name, (None, values))
        writer.add_tensor(name, raw, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def file_tensors(family: Family, model: nn.Module) -> Iterable[tuple[str, Array]]:
    """The tensors as they stand in the file, by their names there."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.architecture], family.config["num_hidden_layers"])
    arrays: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    for name, array in arrays:
        public = name
        for ours, theirs in family.names.items():
            public = public.replace(ours, theirs)
        found = table.get_name(public, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        yield found, np.ascontiguousarray(family.change(found, np.array(array), family.config))


def _write_common(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    attending = config.get("full_attn_idxs")
    kv_heads = config["num_key_value_heads"]
    each = [kv_heads if index in attending else 0 for index in range(LAYERS)] if attending else kv_heads
    writer.add_head_count_kv(each)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def _write_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {str: writer.add_string, int: writer.add_uint32, list: writer.add_array, bool: writer.add_bool}[type(value)]
    add(key, value)
