"""The two functions of an encoder that MLX's CPU backend is slow at, in products and sums alone for a CPU.

Its exp and erf take 12 and 26 ns a value on x86, where a product takes 0.1 to 0.2 ns as long as it stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

# erf(x) = x P(x^2) / Q(x^2) in [-4, 4], as Eigen and XLA compute it in float32: the highest power first.
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -0.0142647390514189,
)
_EXP = tuple(1 / math.factorial(power) for power in range(4, -1, -1))
_NUM_SQUARINGS = 5
_OUT_OF_REACH = (
    -3e4
)  # what is added to scores: float16 holds it; a token of padding that sees none would be NaN by -inf
_LOWEST = -20.0  # exp of less is taken for that of this, 2e-9


class Attention(Protocol):
    """Queries, keys and values (B, H, L, D), real (B, 1, 1, L) and bias (1, H, L, L) or None -> (B, H, L, D)."""

    def __call__(
        self, query: mx.array, key: mx.array, value: mx.array, real: mx.array, bias: mx.array | None
    ) -> mx.array:
        """real: which keys are no padding; bias: what is added to the scores."""


class Activation(Protocol):
    """A function of each value."""

    def __call__(self, x: mx.array) -> mx.array:
        """Same shape."""


class Functions(NamedTuple):
    """How a kind of device attends, and its GELU."""

    attend: Attention
    gelu: Activation


def attend_at_once(query: mx.array, key: mx.array, value: mx.array, real: mx.array, bias: mx.array | None) -> mx.array:
    """Attention by MLX's own kernel, which takes half as long with a mask that is added as with one of booleans."""
    mask = mx.where(real, mx.array(0.0) if bias is None else bias, -math.inf).astype(query.dtype)
    return mx.fast.scaled_dot_product_attention(query, key, value, scale=query.shape[-1] ** -0.5, mask=mask)


def attend_in_products(
    query: mx.array, key: mx.array, value: mx.array, real: mx.array, bias: mx.array | None
) -> mx.array:
    """Attention in float32, with a softmax whose weights are exact to 2e-6."""
    scores = (query * query.shape[-1] ** -0.5) @ key.swapaxes(-1, -2)
    if bias is not None:
        scores = scores + bias
    scores = scores + mx.where(real, 0.0, -math.inf)
    weights = exp_of_negative(scores - scores.max(axis=-1, keepdims=True))
    column = real.swapaxes(-1, -2).astype(mx.float32)  # (B, 1, L, 1): a product sums four times as fast as a sum
    return (weights @ (value * column)) / (weights @ column)


def bias_of_window(num_tokens: int, reach: int) -> mx.array:
    """What is added to scores, (1, 1, L, L), where a token sees so many others to each side."""
    positions = mx.arange(num_tokens)
    is_near = mx.abs(positions[None] - positions[:, None]) <= reach
    return mx.where(is_near, 0.0, _OUT_OF_REACH)[None, None]


def gelu_in_products(x: mx.array) -> mx.array:
    """GELU, exact to 1e-6 of a value."""
    half = 0.5 * x
    return half + half * erf(x * math.sqrt(0.5))


def erf(x: mx.array) -> mx.array:
    """The error function, exact to 5e-7."""
    x = mx.clip(x, -4.0, 4.0)
    square = x * x
    return x * _polynomial(_ERF_P, square) / _polynomial(_ERF_Q, square)


def exp_of_negative(x: mx.array) -> mx.array:
    """Exp of values up to 0, exact to 2e-6: a Taylor polynomial of a small part, squared again and again."""
    power = _polynomial(_EXP, mx.maximum(x, _LOWEST) * 0.5**_NUM_SQUARINGS)
    for _ in range(_NUM_SQUARINGS):
        power = power * power
    return power


def _polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    total = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        total = total * x + coefficient
    return total


ACTIVATIONS: dict[str, Activation | None] = {
    "gelu": None,  # the device's own
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}
"""By the names of transformers."""
CPU = Functions(attend_in_products, gelu_in_products)
GPU = Functions(attend_at_once, nn.gelu)


def of_device(device: mx.Device) -> Functions:
    """What a device computes with."""
    return CPU if device.type == mx.cpu else GPU
