"""Linear layers with the same inputs as one product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_agent_kernels import Norm, finish_projection, project


class Projection(Protocol):
    """One or several linear layers with the same inputs, their outputs side by side."""

    def __call__(
        self, x: mx.array, *, norm: Norm | None = None, residual: mx.array | None = None, is_gated: bool = False
    ) -> mx.array:
        """(T, 1, width) -> (T, 1, outputs), as mlx_agent_kernels.project says."""


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
        return _Dense(arrays["weight"], bias)
    first = layers[0]
    quantized = arrays["weight"], arrays["scales"], arrays.get("biases")
    return _Quantized(*quantized, bias, first.group_size, first.bits, first.mode)


class _Dense(NamedTuple):
    weight: mx.array
    bias: mx.array | None

    def __call__(
        self, x: mx.array, *, norm: Norm | None = None, residual: mx.array | None = None, is_gated: bool = False
    ) -> mx.array:
        return project(x, self.weight, bias=self.bias, norm=norm, residual=residual, is_gated=is_gated)


class _Quantized(NamedTuple):
    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    bias: mx.array | None
    group_size: int
    bits: int
    mode: str

    def __call__(
        self, x: mx.array, *, norm: Norm | None = None, residual: mx.array | None = None, is_gated: bool = False
    ) -> mx.array:
        rows = x if norm is None else mx.fast.rms_norm(x, norm.weight, norm.eps)
        products = mx.quantized_matmul(
            rows, self.weight, self.scales, self.biases, True, self.group_size, self.bits, self.mode
        )
        products = products if self.bias is None else products + self.bias
        return finish_projection(products, residual, is_gated=is_gated)


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
