"""What transformers writes into config.json under other names than those that mlx-lm's models read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING

from mlx_agent_llm.models.rotary_settings import flat_rotary_settings


def in_mlx_lm_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what mlx-lm's models would look for in vain, there and in its text_config."""
    named = _completed(config, _renamed(config) | flat_rotary_settings(config.get("rope_parameters")))
    text_config = config.get("text_config")
    if isinstance(text_config, Mapping):
        whole = {"tie_word_embeddings": config.get("tie_word_embeddings")}
        named["text_config"] = _completed(in_mlx_lm_names(text_config), whole)
    return named


def _completed(config: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **{name: value for name, value in said.items() if config.get(name) is None}}


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers itself knows by two names, by the one that it does not write."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return {}
    names: Mapping[str, str] = CONFIG_MAPPING[model_type].attribute_map
    return {name: config[written] for name, written in names.items() if written in config}
