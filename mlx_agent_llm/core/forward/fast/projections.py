"""Linear layers with the same inputs as one product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import Norm, QuantizedWeight, Weight, project


class Projection(NamedTuple):
    """One or several linear layers with the same inputs, their outputs side by side."""

    weight: Weight
    bias: mx.array | None

    def __call__(
        self, x: mx.array, *, norm: Norm | None = None, residual: mx.array | None = None, is_gated: bool = False
    ) -> mx.array:
        """(T, 1, width) -> (T, 1, outputs), as mlx_agent_kernels.project says."""
        return project(x, self.weight, bias=self.bias, norm=norm, residual=residual, is_gated=is_gated)


def can_join(layers: Sequence[Any]) -> bool:
    """Whether one product can stand for all of them."""
    first = layers[0]
    if {type(layer) for layer in layers} not in ({nn.Linear}, {nn.QuantizedLinear}):
        return False
    if type(first) is nn.QuantizedLinear:
        kinds = {(layer.group_size, layer.bits, layer.mode, layer.scales.dtype, "biases" in layer) for layer in layers}
    else:
        kinds = {layer.weight.dtype for layer in layers}
    return len(kinds) == 1 and len({"bias" in layer for layer in layers}) == 1


def join(layers: Sequence[Any]) -> Projection:
    """One projection for all.

    What the layers hold become views of its arrays: no memory is doubled, and weights that are set afterwards are not
    seen by it. The views are arrays as any others, and keep the joined memory for as long as one of them lives.
    """
    arrays = {name: _join_arrays(layers, name) for name in ("weight", "scales", "biases", "bias") if name in layers[0]}
    bias = arrays.pop("bias", None)
    if type(layers[0]) is nn.Linear:
        return Projection(arrays["weight"], bias)
    return Projection(quantized_weight(layers[0], arrays), bias)


def quantized_weight(layer: Any, arrays: Mapping[str, mx.array]) -> QuantizedWeight:
    """Arrays in the form of a quantized layer, its own or those of several like it."""
    quantized = arrays["weight"], arrays["scales"], arrays.get("biases")
    return QuantizedWeight(*quantized, layer.group_size, layer.bits, layer.mode)


def _join_arrays(layers: Sequence[Any], name: str) -> mx.array:
    if len(layers) == 1:
        only: mx.array = layers[0][name]
        return only
    joined = mx.concatenate([layer[name] for layer in layers])
    mx.eval(joined)
    begin = 0
    for layer in layers:
        end = begin + len(layer[name])
        layer[name] = joined[begin:end]
        begin = end
    mx.eval([layer[name] for layer in layers])
    return joined
