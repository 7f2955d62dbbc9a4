"""The two functions of an encoder that MLX's CPU backend is slow at: for a CPU, numpy computes their exp and tanh.

MLX's exp and erf take 12 and 26 ns a value on x86, numpy's exp and tanh 0.4 by AVX-512, over MLX's own memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

# GELU(2h) = h + h tanh(h P(h^2)), as close to the exact one as five coefficients come, the highest power first. That
# one is above 0, so that the tanh of all that is large is 1.
_GELU = (5.7297808e-04, -3.9144026e-03, -3.9955312e-03, 2.9175031e-01, 1.5956563)
MAX_SCORES = 2**22
"""Of a CPU's attention at a time, unless those of one query are more."""
_OUT_OF_REACH = (
    -3e4
)  # what is added to scores: float16 holds it; a token of padding that sees none would be NaN by -inf


class Attention(Protocol):
    """Queries (B, H, S, D), keys and values (B, H, L, D) -> (B, H, S, D)."""

    def __call__(
        self, query: mx.array, key: mx.array, value: mx.array, real: mx.array | None, bias: mx.array | None
    ) -> mx.array:
        """Real (B, 1, 1, L): which keys are no padding; bias (1, H, S, L): what is added to the scores."""


class Activation(Protocol):
    """A function of each value."""

    def __call__(self, x: mx.array) -> mx.array:
        """Same shape."""


class Functions(NamedTuple):
    """How a kind of device attends, and its GELU."""

    attend: Attention
    gelu: Activation


def attend_at_once(
    query: mx.array, key: mx.array, value: mx.array, real: mx.array | None, bias: mx.array | None
) -> mx.array:
    """Attention by MLX's own kernel, which takes half as long with a mask that is added as with one of booleans."""
    mask = bias if real is None else mx.where(real, mx.array(0.0) if bias is None else bias, -math.inf)
    mask = None if mask is None else mask.astype(query.dtype)
    return mx.fast.scaled_dot_product_attention(query, key, value, scale=query.shape[-1] ** -0.5, mask=mask)


def attend_by_numpy(
    query: mx.array, key: mx.array, value: mx.array, real: mx.array | None, bias: mx.array | None
) -> mx.array:
    """Attention in float32 with a softmax by numpy, of so many queries at a time that the scores are MAX_SCORES."""
    query, key, value = (x.astype(mx.float32) for x in (query * query.shape[-1] ** -0.5, key, value))
    hidden = None if real is None else np.where(np.asarray(real), np.float32(0), np.float32(-np.inf))
    step = max(1, MAX_SCORES // math.prod(key.shape[:3]))
    parts = [slice(start, start + step) for start in range(0, query.shape[2], step)]
    biases = [None if bias is None else bias[:, :, part] for part in parts]
    return mx.concatenate(
        [_attend_some(query[:, :, part], key, value, hidden, each) for part, each in zip(parts, biases, strict=True)],
        axis=2,
    )


def bias_of_window(num_tokens: int, reach: int) -> mx.array:
    """What is added to scores, (1, 1, L, L), where a token sees so many others to each side."""
    positions = mx.arange(num_tokens)
    is_near = mx.abs(positions[None] - positions[:, None]) <= reach
    return mx.where(is_near, 0.0, _OUT_OF_REACH)[None, None]


def gelu_by_numpy(x: mx.array) -> mx.array:
    """GELU, exact to 4e-6."""
    half = 0.5 * x.astype(mx.float32)
    values = _memory_of(half)
    with np.errstate(over="ignore"):  # the tanh of infinity is 1
        square = values * values
        total = square * _GELU[0]
        for coefficient in _GELU[1:-1]:
            total += coefficient
            total *= square
        total += _GELU[-1]
        total *= values
    values += values * np.tanh(total, out=total)
    return half.astype(x.dtype)


def _attend_some(
    query: mx.array, key: mx.array, value: mx.array, hidden: NDArray[np.float32] | None, bias: mx.array | None
) -> mx.array:
    """Queries (B, H, S, D) -> (B, H, S, D), evaluated, so that nothing holds their scores any more."""
    scores = query @ key.swapaxes(-1, -2)
    if bias is not None:
        scores = scores + bias
    weights = _memory_of(scores)
    if hidden is not None:
        weights += hidden
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    ones = mx.ones((key.shape[2], 1))  # a product sums three times as fast as a sum
    attended = (scores @ value) / (scores @ ones)
    mx.eval(attended)
    return attended


def _memory_of(array: mx.array) -> NDArray[np.float32]:
    """The values of an array of float32 without a copy, to be written by who made the array alone."""
    mx.eval(array)
    memory: NDArray[np.float32] = np.asarray(array)
    return memory


ACTIVATIONS: dict[str, Activation | None] = {
    "gelu": None,  # the device's own
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}
"""By the names of transformers."""
CPU = Functions(attend_by_numpy, gelu_by_numpy)
GPU = Functions(attend_at_once, nn.gelu)


def of_device(device: mx.Device) -> Functions:
    """What a device computes with."""
    return CPU if device.type == mx.cpu else GPU
