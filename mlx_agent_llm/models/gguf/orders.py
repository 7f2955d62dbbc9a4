"""Where GGUF keeps the rows or columns of a weight in another order than Hugging Face's checkpoints and mlx-lm do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mlx_agent_llm.models.gguf.weights import Order


class Orders(NamedTuple):
    """For each row (column) of the model's weight the one in the file; None is the same order."""

    rows: Order | None = None
    columns: Order | None = None


OrderOf = Callable[[Mapping[str, Any]], Orders]
"""From the arguments of the model to the orders of a tensor."""


def _rotary_queries(settings: Mapping[str, Any]) -> Orders:
    return Orders(rows=_rotary_pairs(settings["num_attention_heads"], settings["head_dim"]))


def _rotary_keys(settings: Mapping[str, Any]) -> Orders:
    return Orders(rows=_rotary_pairs(settings["num_key_value_heads"], settings["head_dim"]))


def _rotary_pairs(num_heads: int, head_dim: int) -> Order:
    """The file has the two halves of a head interleaved, so that neighbours rotate together."""
    return np.arange(num_heads * head_dim).reshape(num_heads, head_dim // 2, 2).transpose(0, 2, 1).ravel()


def _value_rows(settings: Mapping[str, Any]) -> Orders:
    return Orders(rows=_value_heads(settings, settings["linear_value_head_dim"]))


def _value_numbers(settings: Mapping[str, Any]) -> Orders:
    return Orders(rows=_value_heads(settings, 1))


def _value_columns(settings: Mapping[str, Any]) -> Orders:
    return Orders(columns=_value_heads(settings, settings["linear_value_head_dim"]))


def _rows_after_keys(settings: Mapping[str, Any]) -> Orders:
    num_others = 2 * settings["linear_num_key_heads"] * settings["linear_key_head_dim"]
    values = num_others + _value_heads(settings, settings["linear_value_head_dim"])
    return Orders(rows=np.concatenate([np.arange(num_others), values]))


def _value_heads(settings: Mapping[str, Any], width: int) -> Order:
    """The file has the first value head of every key head, then the second of each; the model all of one together."""
    num_keys = settings["linear_num_key_heads"]
    in_file = np.arange(settings["linear_num_value_heads"] * width).reshape(-1, num_keys, width)
    return in_file.transpose(1, 0, 2).ravel()


ORDERS_OF_ROTARY_PAIRS: Mapping[str, OrderOf] = {"attn_q": _rotary_queries, "attn_k": _rotary_keys}
ORDERS_OF_VALUE_HEADS: Mapping[str, OrderOf] = {
    "attn_qkv": _rows_after_keys,
    "ssm_conv1d": _rows_after_keys,
    "attn_gate": _value_rows,
    "ssm_beta": _value_numbers,
    "ssm_alpha": _value_numbers,
    "ssm_dt.bias": _value_numbers,
    "ssm_a": _value_numbers,
    "ssm_out": _value_columns,
}
