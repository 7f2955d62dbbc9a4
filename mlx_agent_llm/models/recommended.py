"""What a model's makers recommend to sample with, in generation_config.json or in the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.request import SamplingDefaults

_JSON_KEYS: Mapping[str, str] = {
    name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
}
_GGUF_KEYS: Mapping[str, str] = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def from_generation_config(path: Path, values: Mapping[str, Any]) -> SamplingDefaults:
    """The recommendations in generation_config.json.

    do_sample=False there is temperature 0, whatever else it says; do_sample=True without a temperature is 1, as in
    transformers, whose file this is.
    """
    defaults = _read(path, values, _JSON_KEYS)
    if values.get("do_sample") is False:
        return SamplingDefaults(repetition_penalty=defaults.repetition_penalty)
    if values.get("do_sample") is True and values.get("temperature") is None:
        return _read(path, {**values, "temperature": 1.0}, _JSON_KEYS)
    return defaults


def from_gguf_metadata(path: Path, metadata: Mapping[str, Any]) -> SamplingDefaults:
    """The recommendations under general.sampling."""
    return _read(path, metadata, _GGUF_KEYS)


def _read(path: Path, values: Mapping[str, Any], keys: Mapping[str, str]) -> SamplingDefaults:
    found = {name: values[key] for name, key in keys.items() if values.get(key) is not None}
    try:
        return SamplingDefaults(**found)
    except ValueError as error:
        raise ModelLoadError(f"{path}: a recommendation for sampling is out of bounds: {error}") from error
