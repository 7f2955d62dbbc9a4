"""Tiny models of every model type of mlx-lm, with random weights that let what lies far back decide the next token."""

from __future__ import annotations

import importlib

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map_with_path

from tests.support.model_types.configs import config_of


def tiny(model_type: str, *, seed: int = 0) -> nn.Module:
    """The tiny model of a type; the same weights for the same seed."""
    module = importlib.import_module(f"mlx_lm.models.{model_type}")
    mx.random.seed(seed)
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config_of(model_type)))
    keys = iter(mx.random.split(mx.random.key(seed), 4096))

    def random_weight(path: str, weight: mx.array) -> mx.array:
        """Of spread logits: those of mlx-lm's own initial weights differ by less than what rounding makes of them."""
        if weight.ndim < 2 or not mx.issubdtype(weight.dtype, mx.floating) or path.endswith(_STATE_PARAMETERS):
            return weight
        random: mx.array = mx.random.normal(weight.shape, key=next(keys)) * _SPREAD / weight.shape[-1] ** 0.5
        return random.astype(weight.dtype)

    model.update(tree_map_with_path(random_weight, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model


_SPREAD = 1.5
# What a state forgets a token by: of random numbers it would remember nothing, or grow without bound.
_STATE_PARAMETERS = ("A_log", "dt_bias", "decay", "conv1d.weight")
