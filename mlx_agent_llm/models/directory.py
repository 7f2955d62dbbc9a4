"""A local directory in mlx-lm's layout: config.json, model*.safetensors and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm import utils as mlx_lm_utils
from transformers import AutoTokenizer

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.configuration import check_configuration, context_length, model_classes
from mlx_agent_llm.models.json_file import read_json_object
from mlx_agent_llm.models.recommended import from_generation_config
from mlx_agent_llm.models.rotary_settings import check_rotary_settings
from mlx_agent_llm.models.safetensors import check_safetensors
from mlx_agent_llm.models.tokenizer import HFTokenizer
from mlx_agent_llm.models.transformers_names import in_mlx_lm_names
from mlx_agent_llm.request import SamplingDefaults


def read_directory(path: Path) -> tuple[nn.Module, HFTokenizer, int | None]:
    """The model with its weights not yet evaluated, the tokenizer and the context length, None where none is named."""
    config = read_json_object(path / "config.json")
    check_configuration(path / "config.json", config)
    max_model_len = context_length(config, config.get("text_config"))
    end_tokens = _end_tokens(path, config)
    _check_shards(path)
    return _read_model(path, config), _read_tokenizer(path, end_tokens), max_model_len


def read_context_length(path: Path) -> int | None:
    """The context length by config.json alone; None where it names none."""
    config = read_json_object(path / "config.json")
    return context_length(config, config.get("text_config"))


def read_sampling_defaults(path: Path) -> SamplingDefaults:
    """What generation_config.json recommends to sample with."""
    generation = path / "generation_config.json"
    return from_generation_config(generation, read_json_object(generation) if generation.exists() else {})


def _read_model(path: Path, config: Mapping[str, Any]) -> nn.Module:
    named = in_mlx_lm_names(config)
    try:
        model: nn.Module = mlx_lm_utils.load_model(
            path, lazy=True, model_config=named, get_model_classes=model_classes
        )[0]
    except ModelLoadError:
        raise
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        raise ModelLoadError(f"{path}: mlx-lm cannot load this model: {type(error).__name__}: {error}") from error
    check_rotary_settings(path / "config.json", named, model_classes(config)[1], model)
    return model


def _check_shards(path: Path) -> None:
    """Every file of weights has to be whole, and each one that the index names has to be there."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelLoadError(f"{index}: weight_map must be an object")
        for shard in sorted({str(shard) for shard in weight_map.values()}):
            if not (path / shard).is_file():
                raise ModelLoadError(f"{index}: weight_map names {shard!r}, which is missing")
    for file in sorted(path.glob("model*.safetensors")):
        check_safetensors(file)


def _read_tokenizer(path: Path, end_tokens: list[int]) -> HFTokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # any code of any tokenizer class of transformers runs in there
        raise ModelLoadError(f"{path}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    return HFTokenizer(tokenizer, end_tokens)


def _end_tokens(path: Path, config: Mapping[str, Any]) -> list[int]:
    """All ids that config.json and generation_config.json call eos_token_id, a number or a list of them."""
    generation = path / "generation_config.json"
    sources = [config, config.get("text_config") or {}, read_json_object(generation) if generation.exists() else {}]
    found = list[int]()
    for source in sources:
        value = source.get("eos_token_id")
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and (isinstance(token_id, bool) or not isinstance(token_id, int)):
                raise ModelLoadError(f"{path}: eos_token_id={value!r} must be an integer or a list of integers")
            found.extend([] if token_id is None else [token_id])
    return found
