"""A local directory in mlx-lm's layout: config.json, model*.safetensors and a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm import utils as mlx_lm_utils
from transformers import AutoTokenizer

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError
from mlx_agent_llm.models.safetensors import check_safetensors
from mlx_agent_llm.models.tokenizer import HFTokenizer

_CONTEXT_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "n_positions",
    "n_ctx",
)


def read_directory(path: Path) -> tuple[nn.Module, HFTokenizer, int]:
    """The model with its weights not yet evaluated, the tokenizer and the context length."""
    config = _read_json(path / "config.json")
    max_model_len = _context_length(path, config)
    end_tokens = _end_tokens(path, config)
    for file in sorted(path.glob("model*.safetensors")):
        check_safetensors(file)
    return _read_model(path), _read_tokenizer(path, end_tokens), max_model_len


def read_context_length(path: Path) -> int:
    """The context length by config.json alone."""
    return _context_length(path, _read_json(path / "config.json"))


def _read_model(path: Path) -> nn.Module:
    try:
        model: nn.Module = mlx_lm_utils.load_model(path, lazy=True, get_model_classes=_model_classes)[0]
    except UnsupportedModelError:
        raise
    except Exception as error:  # any code of any model class of mlx-lm runs in there
        raise ModelLoadError(f"{path}: mlx-lm cannot load this model: {type(error).__name__}: {error}") from error
    return model


def _model_classes(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
    try:
        classes: tuple[type[nn.Module], type] = mlx_lm_utils._get_classes(config)
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(f"model_type={config.get('model_type')!r} is not supported by mlx-lm") from error
    return classes


def _read_tokenizer(path: Path, end_tokens: list[int]) -> HFTokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # any code of any tokenizer class of transformers runs in there
        raise ModelLoadError(f"{path}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    return HFTokenizer(tokenizer, end_tokens)


def _end_tokens(path: Path, config: Mapping[str, Any]) -> list[int]:
    """All ids that config.json and generation_config.json call eos_token_id, a number or a list of them."""
    generation = path / "generation_config.json"
    sources = [config, config.get("text_config") or {}, _read_json(generation) if generation.exists() else {}]
    found = list[int]()
    for source in sources:
        value = source.get("eos_token_id")
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and (isinstance(token_id, bool) or not isinstance(token_id, int)):
                raise ModelLoadError(f"{path}: eos_token_id={value!r} must be an integer or a list of integers")
            found.extend([] if token_id is None else [token_id])
    return found


def _context_length(path: Path, config: Mapping[str, Any]) -> int:
    for source in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            value = source.get(key)
            if isinstance(value, int) and value >= 1:
                return value
    raise UnsupportedModelError(f"{path}: config.json names no context length: one of {', '.join(_CONTEXT_KEYS)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelLoadError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: must hold a JSON object")
    return value
