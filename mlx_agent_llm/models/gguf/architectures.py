"""The architectures of GGUF that can be loaded: where each tensor goes in mlx-lm's model, and what is different there.

Names of tensors: the public constants of GGUF. The arguments of the models: settings.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_agent_llm.models.gguf import settings
from mlx_agent_llm.models.gguf.metadata import Metadata
from mlx_agent_llm.models.gguf.orders import ORDERS_OF_ROTARY_PAIRS, ORDERS_OF_VALUE_HEADS, OrderOf

Names = dict[str, str]
Values = Callable[[mx.array], mx.array]

_TOP: Names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION: Names = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
_HEAD_NORMS: Names = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GATED_MLP: Names = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_EXPERTS: Names = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
}
_LLAMA: Names = _ATTENTION | _GATED_MLP
_GEMMA: Names = _LLAMA | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GPT_OSS: Names = _ATTENTION | {
    "post_attention_norm": "post_attention_layernorm",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_gate_inp": "mlp.router",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_PHI3: Names = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_LFM2: Names = _ATTENTION | {
    "attn_norm": "operator_norm",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "attn_output": "self_attn.out_proj",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
_QWEN35: Names = (
    _LLAMA
    | _HEAD_NORMS
    | {
        "post_attention_norm": "post_attention_layernorm",
        "attn_qkv": "linear_attn.in_proj_qkv",
        "attn_gate": "linear_attn.in_proj_z",
        "ssm_beta": "linear_attn.in_proj_b",
        "ssm_alpha": "linear_attn.in_proj_a",
        "ssm_conv1d": "linear_attn.conv1d",
        "ssm_dt.bias": "linear_attn.dt_bias",
        "ssm_a": "linear_attn.A_log",
        "ssm_norm": "linear_attn.norm",
        "ssm_out": "linear_attn.out_proj",
    }
)


def _less_one(weight: mx.array) -> mx.array:
    """The weight of a norm that multiplies by one more than its weight, which the file has added already."""
    return weight - 1


def _log_of_negative(decay: mx.array) -> mx.array:
    return mx.log(-decay)


_GEMMA_NORMS = dict.fromkeys(
    ("output_norm", "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"),
    _less_one,
)


@dataclass(frozen=True)
class Architecture:
    """One architecture: the model_type of mlx-lm, its arguments, and where the tensors of a layer go.

    layer, top: the tensor's name without its suffix (with it where the model's name has none) -> the name in the model.
    prefix: before all names of the model. orders: the tensors whose rows or columns lie in another order than the
    model's. values: the tensors whose values are others than the model's.
    """

    model_type: str
    read_settings: Callable[[Metadata], dict[str, Any]]
    layer: Names
    top: Names = field(default_factory=lambda: _TOP)
    prefix: str = ""
    orders: Mapping[str, OrderOf] = field(default_factory=dict)
    values: Mapping[str, Values] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", settings.llama, _LLAMA, orders=ORDERS_OF_ROTARY_PAIRS),
    "mistral3": Architecture("ministral3", settings.mistral3, _LLAMA, orders=ORDERS_OF_ROTARY_PAIRS),
    "smollm3": Architecture("smollm3", settings.smollm3, _LLAMA, orders=ORDERS_OF_ROTARY_PAIRS),
    "granite": Architecture("granite", settings.granite, _LLAMA, orders=ORDERS_OF_ROTARY_PAIRS),
    "qwen2": Architecture("qwen2", settings.qwen2, _LLAMA),
    "qwen3": Architecture("qwen3", settings.qwen3, _LLAMA | _HEAD_NORMS),
    "qwen3moe": Architecture("qwen3_moe", settings.qwen3moe, _ATTENTION | _HEAD_NORMS | _EXPERTS),
    "qwen35": Architecture(
        "qwen3_5",
        settings.qwen35,
        _QWEN35,
        prefix="language_model.",
        orders=ORDERS_OF_VALUE_HEADS,
        values={"ssm_a": _log_of_negative},
    ),
    "gemma2": Architecture("gemma2", settings.gemma2, _GEMMA, values=_GEMMA_NORMS),
    "gemma3": Architecture("gemma3_text", settings.gemma3, _GEMMA | _HEAD_NORMS, values=_GEMMA_NORMS),
    "phi3": Architecture("phi3", settings.phi3, _PHI3),
    "gpt-oss": Architecture("gpt_oss", settings.gpt_oss, _GPT_OSS),
    "lfm2": Architecture(
        "lfm2", settings.lfm2, _LFM2, {"token_embd": "model.embed_tokens", "token_embd_norm": "model.embedding_norm"}
    ),
}
