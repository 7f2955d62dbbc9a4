"""Models of real ones' shapes that are made in the process: speed does not depend on what the weights say.

Their tokenizer has as many tokens as the model: bytes, two special tokens, and words of a blank and four letters, so
that what it writes at random is text, and is read as the tokens that were written.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from string import ascii_lowercase
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_agent_llm.config import DType
from mlx_agent_llm.models import LoadedModel, from_parts
from mlx_agent_llm.models.placement import place_weights
from mlx_agent_llm.process.default_device import default_device
from mlx_agent_llm.testing import ByteTokenizer

_QWEN3_06B = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
# Mamba 2 beside attention and feed-forward layers, as in Nemotron-H, in a size that a CPU computes.
_HYBRID = {
    "model_type": "nemotron_h",
    "hidden_size": 512,
    "num_hidden_layers": 14,
    "hybrid_override_pattern": list("M-M-M*-M-M-M*-"),
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "attention_bias": False,
    "mamba_num_heads": 16,
    "mamba_head_dim": 64,
    "mamba_proj_bias": False,
    "ssm_state_size": 64,
    "conv_kernel": 4,
    "n_groups": 2,
    "time_step_limit": (0.001, 0.1),
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "use_bias": False,
    "use_conv_bias": True,
    "vocab_size": 32768,
    "max_position_embeddings": 40960,
}
_GEMMA3_270M = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "num_hidden_layers": 18,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "rms_norm_eps": 1e-6,
    "vocab_size": 32768,  # of 262,144, of which a head is all the work on a CPU
    "max_position_embeddings": 32768,
}
_CONFIGS: Mapping[str, dict[str, Any]] = {
    "random": _QWEN3_06B,
    "random-hybrid": _HYBRID,
    "random-window": _GEMMA3_270M,
}
RANDOM_MODELS = tuple(_CONFIGS)
_WORD = re.compile("( [a-z]{4})")


def random_model(dtype: DType = "auto", name: str = "random") -> LoadedModel:
    """Random weights in the shape of one of RANDOM_MODELS; "auto" is float32 on a CPU and bfloat16 elsewhere."""
    config = _CONFIGS[name]
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    model.update(tree_map(lambda weight: 0.02 * mx.random.normal(weight.shape), model.parameters()))
    place_weights(model, default_device.own, dtype, mx.bfloat16)
    return from_parts(model, _WordTokenizer(config["vocab_size"]))


class _WordTokenizer(ByteTokenizer):
    """A ByteTokenizer with words after its tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        """Token id -> the bytes that it adds to the text."""
        first = ByteTokenizer.vocab_size
        return [*super().token_bytes, *(_word(number) for number in range(self.vocab_size - first))]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of `text`, words where they are known."""
        token_ids: list[int] = []
        for part in _WORD.split(text):
            word = ByteTokenizer.vocab_size + _number(part) if _WORD.fullmatch(part) else self.vocab_size
            token_ids += [word] if word < self.vocab_size else super().encode(part)
        return token_ids


def _word(number: int) -> bytes:
    letters = [ascii_lowercase[number // 26**place % 26] for place in range(4)]
    return f" {''.join(letters)}".encode()


def _number(word: str) -> int:
    return sum(ascii_lowercase.index(letter) * 26**place for place, letter in enumerate(word[1:]))
