"""Weights of safetensors files, under our modules' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models.safetensors import check_safetensors

Rename = Callable[[str], str | tuple[str, ...] | None]
"""Our name of a weight; several names of one that is cut into as many parts; None of one that nobody has a use for."""


def load_weights(module: nn.Module, folder: Path, rename: Rename) -> None:
    """Fill a module from model*.safetensors; a weight that is missing, unknown or misshapen is a ModelLoadError."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelLoadError(f"{folder}: no model*.safetensors")
    weights = list[tuple[str, mx.array]]()
    for file in files:
        check_safetensors(file)
        arrays = mx.load(str(file))
        assert isinstance(arrays, dict)
        weights += [renamed for name, array in arrays.items() for renamed in _renamed(rename(name), array)]
    try:
        module.load_weights(weights)
    except ValueError as error:
        raise ModelLoadError(f"{folder}: the weights are not those of config.json: {error}") from error


def hold_by_columns(model: nn.Module) -> None:
    """Lay each product's weights out in memory as they are multiplied by: on a CPU that is 3% faster."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            by_columns = mx.contiguous(module.weight.T)
            module.weight = by_columns.T
            mx.eval(module.weight)


def check_finite(model: nn.Module, path: Path) -> None:
    """Raise a ModelLoadError that names a weight with values that are not finite."""
    parameters = tree_flatten(model.parameters())
    assert isinstance(parameters, list)
    for name, array in parameters:
        if not mx.all(mx.isfinite(array)).item():
            raise ModelLoadError(f"{path}: the weight {name!r} holds values that are not finite")


def _renamed(names: str | tuple[str, ...] | None, array: mx.array) -> list[tuple[str, mx.array]]:
    if names is None:
        return []
    if isinstance(names, str):
        return [(names, array)]
    if array.shape[0] % len(names):
        raise ModelLoadError(f"a weight of {array.shape[0]} rows cannot be cut into {', '.join(names)}")
    return list(zip(names, mx.split(array, len(names)), strict=True))
