"""What a configuration says of rotary embeddings: flat, as mlx-lm's models read it, and whether they read all of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.nn as nn

from mlx_agent_llm.errors import UnsupportedModelError

_THETA = ("rope_theta", "rotary_emb_base")
_PART = ("partial_rotary_factor", "rotary_pct")
# What a model that has one of these makes of the others is its own affair.
_PART_READERS = {*_PART, "rotary_dim", "rope_parameters", "text_config"}
_LOCAL_READERS = {"rope_local_base_freq", "rope_parameters", "text_config"}
# Of these nothing changes within the context, or where all positions are those of text.
_UNSCALED = ("default", "dynamic", "mrope")


def flat_rotary_settings(rope_parameters: Any) -> dict[str, Any]:
    """The object that transformers writes from its version 5 on, or one of them for each kind of layer, by flat names.

    Of two kinds of layers those with a window have the local base.
    """
    if not isinstance(rope_parameters, Mapping):
        return {}
    whole, local = rope_parameters.get("full_attention", rope_parameters), rope_parameters.get("sliding_attention")
    if not isinstance(whole, Mapping):
        return {}
    flat = dict.fromkeys(_THETA, whole.get("rope_theta")) | dict.fromkeys(_PART, whole.get("partial_rotary_factor"))
    flat["rope_local_base_freq"] = local.get("rope_theta") if isinstance(local, Mapping) else None
    flat["original_max_position_embeddings"] = whole.get("original_max_position_embeddings")
    kind = _kind(whole)
    scaling = None if kind == "default" else {**whole, "rope_type": kind, "type": kind}
    return {name: value for name, value in flat.items() if value is not None} | {"rope_scaling": scaling}


def check_rotary_settings(file: Path, config: Mapping[str, Any], args_class: type, model: nn.Module) -> None:
    """UnsupportedModelError where mlx-lm's model turns heads otherwise than a configuration with flat names says."""
    fields = inspect.signature(args_class).parameters.keys()
    text_config = config.get("text_config")
    source = text_config if isinstance(text_config, Mapping) else config
    modules: list[Any] = model.modules()
    ropes = [module for module in modules if type(module).__name__.endswith(("RoPE", "RotaryEmbedding"))]
    unread = {
        "partial_rotary_factor": not fields & _PART_READERS and _turns_too_much(ropes, source),
        "rope_local_base_freq": not fields & _LOCAL_READERS and _has_local_base(source),
        "rope_scaling": _turns_unscaled(ropes, source),
    }
    for name in (name for name, is_unread in unread.items() if is_unread):
        raise UnsupportedModelError(
            f"{file}: {name}={source[name]!r:.100}: mlx-lm does not read it for model_type={config['model_type']!r}"
        )


def _turns_too_much(ropes: Sequence[Any], config: Mapping[str, Any]) -> bool:
    """Whether whole heads are turned where a part of each is to be."""
    head_dim = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    is_partial = config.get("partial_rotary_factor") not in (None, 1)
    return is_partial and any(type(rope) is nn.RoPE and rope.dims == head_dim for rope in ropes)


def _has_local_base(config: Mapping[str, Any]) -> bool:
    return config.get("rope_local_base_freq") not in (None, config.get("rope_theta"))


def _turns_unscaled(ropes: Sequence[Any], config: Mapping[str, Any]) -> bool:
    """Whether all heads are turned as without scaling, where one is asked for."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping) or _kind(scaling) in _UNSCALED:
        return False
    return bool(ropes) and all(type(rope) is nn.RoPE and rope.scale == 1 for rope in ropes)


def _kind(settings: Mapping[str, Any]) -> Any:
    return settings.get("rope_type") or settings.get("type") or "default"
