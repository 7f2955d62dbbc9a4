"""What config.json says of a model, and what it asks for that cannot be had: refused before any weights are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm import utils as mlx_lm_utils

from mlx_agent_llm.errors import ModelLoadError, UnsupportedModelError

CONTEXT_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "n_positions",
    "n_ctx",
    "block_size",
)
# As mlx-lm's load_model reads them; it takes others for no quantization at all.
_QUANT_METHODS = ("awq", "bitnet", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4", "mxfp8")
_MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
_MODULE_NAME = re.compile(r"\w[\w-]*", re.ASCII)


def check_configuration(file: Path, config: Mapping[str, Any]) -> None:
    """Raise for code that comes with the model, for an unknown model type, and for a quantization that nobody reads."""
    if config.get("model_file") is not None:
        raise UnsupportedModelError(
            f"{file}: model_file={config['model_file']!r}: code that comes with a model is never executed"
        )
    model_classes(config, file)
    _check_quantization(file, config.get("quantization"))
    text_config = config.get("text_config")
    if text_config is not None and not isinstance(text_config, Mapping):
        raise ModelLoadError(f"{file}: text_config={text_config!r} must be an object")
    for source in (config, text_config or {}):
        _check_quantization_config(file, source.get("quantization_config"))


def context_length(*sources: Any) -> int | None:
    """The longest sequence that the first of several configurations names which names one; they may be objects."""
    for source in sources:
        for key in CONTEXT_KEYS:
            value = source.get(key) if isinstance(source, Mapping) else getattr(source, key, None)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
                return value
    return None


def model_classes(config: Mapping[str, Any], file: Path | str = "config.json") -> tuple[type[nn.Module], type]:
    """mlx-lm's classes of the model and of its arguments; UnsupportedModelError for a type that it does not have."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not _MODULE_NAME.fullmatch(model_type):
        raise ModelLoadError(f"{file}: model_type={model_type!r} must be the name of a model type")
    try:
        classes: tuple[type[nn.Module], type] = mlx_lm_utils._get_classes(dict(config))
    except (ValueError, AttributeError) as error:  # no such module, or one that is no model's
        raise UnsupportedModelError(f"{file}: model_type={model_type!r} is not supported by mlx-lm") from error
    except SystemExit as error:  # a module of mlx-lm ends the process where a package that it needs is missing
        raise UnsupportedModelError(
            f"{file}: model_type={model_type!r} needs a package that mlx-lm does not install"
        ) from error
    return classes


def _check_quantization(file: Path, quantization: Any) -> None:
    """That of mlx-lm's own files: bits, group_size, mode, and the same again by the names of layers."""
    if quantization is None:
        return
    if not isinstance(quantization, Mapping):
        raise ModelLoadError(f"{file}: quantization={quantization!r} must be an object")
    for name in ("bits", "group_size"):
        value = quantization.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelLoadError(f"{file}: quantization.{name}={value!r} must be an integer of at least 1")
    if quantization.get("mode", "affine") not in _MODES:
        raise UnsupportedModelError(
            f"{file}: quantization.mode={quantization['mode']!r} is not supported: one of {', '.join(_MODES)} is"
        )


def _check_quantization_config(file: Path, settings: Any) -> None:
    """That of the files of others, which names a method."""
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise ModelLoadError(f"{file}: quantization_config={settings!r} must be an object")
    method = settings.get("quant_method")
    if "quantization" not in settings and method not in (None, *_QUANT_METHODS):
        raise UnsupportedModelError(
            f"{file}: quantization_config.quant_method={method!r} is not supported: one of "
            f"{', '.join(_QUANT_METHODS)} is"
        )
