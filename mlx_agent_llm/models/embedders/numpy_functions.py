"""An encoder's functions by numpy, over texts without padding: for a CPU.

Its products are as fast as those of MLX. MLX's exp and erf take 12 and 26 ns a value on x86 and numpy's exp2 0.2 by
AVX-512; what has more than one pass over its values does them for so many as the processor's cache holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_agent_llm.models.embedders.functions import Heads
from mlx_agent_llm.models.embedders.packed_layout import Group, PackedLayout
from mlx_agent_llm.models.embedders.text_batch import TextBatch

Rows = NDArray[np.float32]

NUM_SCORES = 2**19
"""Of attention at a time, unless those of one query are more."""
NUM_ACTIVATED = 2**16
"""Values at a time."""
_NUM_QUERIES = 64  # at a time, where a layer sees a window
_MAX_EXPONENT = 100.0  # of 2, up or down: float32 ends at 126
_LOG2_E = math.log2(math.e)
# x / (1 + 2^(x P(x^2))), coefficients of P, the highest power first. GELU's are as close to the exact one as five come;
# they are all below 0 together, so that what is large stays as it is or becomes 0.
_TANH = -2 * math.sqrt(2 / math.pi) * _LOG2_E
_POLYNOMIALS: Mapping[str, Sequence[float]] = {
    "gelu": (-3.2290337e-06, 8.8238894e-05, 3.6027082e-04, -1.0522668e-01, -2.3020454),
    "gelu_new": (_TANH * 0.044715, _TANH),
    "gelu_pytorch_tanh": (_TANH * 0.044715, _TANH),
    "silu": (-_LOG2_E,),
}


class NumpyFunctions:
    """Functions in float32, whatever the weights are."""

    def lay_out(self, texts: TextBatch) -> PackedLayout:
        """See Functions."""
        return PackedLayout(np.asarray(texts.lengths), texts.tokens.shape[1])

    def enter(self, embedded: mx.array, layout: PackedLayout) -> Rows:
        """See Functions."""
        return layout.pack(_as_numpy(embedded))

    def leave(self, values: Rows, layout: PackedLayout, only_first: bool = False) -> mx.array:
        """See Functions."""
        return mx.array(values[:, None] if only_first else layout.unpack(values))

    def end_layer(self, values: Rows, layout: PackedLayout) -> None:
        """See Functions; they are computed."""

    def first(self, values: Rows, layout: PackedLayout) -> Rows:
        """See Functions."""
        return layout.first(values)

    def bias(self, bias: mx.array) -> Rows:
        """See Functions; of scores that are exponents of 2."""
        exponents: Rows = _as_numpy(bias) * np.float32(_LOG2_E)
        return exponents

    def linear(self, module: nn.Linear, x: Rows) -> Rows:
        """See Functions."""
        products: Rows = x @ _as_numpy(module.weight).T
        if "bias" in module:
            products += _as_numpy(module.bias)
        return products

    def layer_norm(self, module: nn.LayerNorm, x: Rows) -> Rows:
        """See Functions."""
        size = np.float32(x.shape[-1])
        normed: Rows = x - (np.einsum("ij->i", x) / size)[:, None]
        variance = np.einsum("ij,ij->i", normed, normed) / size
        normed /= np.sqrt(variance + np.float32(module.eps))[:, None]
        normed *= _as_numpy(module.weight)
        if "bias" in module:
            normed += _as_numpy(module.bias)
        return normed

    def rms_norm(self, weight: mx.array, x: Rows, eps: float) -> Rows:
        """See Functions."""
        mean = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
        normed: Rows = x / np.sqrt(mean + np.float32(eps))
        normed *= _as_numpy(weight)
        return normed

    def activate(self, name: str, x: Rows) -> Rows:
        """See Functions; GELU is exact to 4e-6."""
        if name == "relu":
            return np.maximum(x, 0, out=x)
        num_rows = max(1, NUM_ACTIVATED // x.shape[-1])
        with np.errstate(over="ignore"):  # what is divided by infinity is 0
            for start in range(0, len(x), num_rows):
                _activate_some(x[start : start + num_rows], _POLYNOMIALS[name])
        return x

    def attend(
        self, query: Rows, key: Rows, value: Rows, layout: PackedLayout, heads: Heads, bias: Rows | None
    ) -> Rows:
        """See Functions."""
        query, key, value = (
            x.reshape(len(x), count, -1)
            for x, count in ((query, heads.num_heads), (key, heads.num_kv_heads), (value, heads.num_kv_heads))
        )
        if heads.rotary_base is not None:
            rotation = layout.rotation(heads.rotary_base, query.shape[-1] // 2)
            query, key = (_rotate(x, *rotation) for x in (query, key))
        query *= np.float32(heads.scale * _LOG2_E)
        if heads.num_kv_heads < heads.num_heads:
            key, value = (np.repeat(x, heads.num_heads // heads.num_kv_heads, axis=1) for x in (key, value))
        can_overflow = bias is not None or _longest(query) * _longest(key) > _MAX_EXPONENT
        attended = np.empty(query.shape, np.float32)
        for group in layout.groups:
            of_group = (_by_head(x, group) for x in (attended, query, key, value))
            _attend_group(*of_group, bias=bias, reach=heads.reach, can_overflow=can_overflow)
        return attended.reshape(len(attended), -1)


def _activate_some(x: Rows, polynomial: Sequence[float]) -> None:
    square = x * x
    exponent = np.full_like(x, polynomial[0])
    for coefficient in polynomial[1:]:
        exponent *= square
        exponent += np.float32(coefficient)
    exponent *= x
    np.exp2(exponent, out=exponent)
    exponent += np.float32(1)
    x /= exponent


def _rotate(x: Rows, cosine: Rows, sine: Rows) -> Rows:
    """Turn pairs of (T, H, D), whose second halves stand behind all first ones."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def _longest(x: Rows) -> float:
    """The length of the longest vector of (T, H, D): no score is more than the product of two."""
    return math.sqrt(np.einsum("thd,thd->th", x, x).max())


def _by_head(x: Rows, group: Group) -> Rows:
    """(T, H, D) -> (num_texts, H, length, D), without a copy."""
    return x[group.rows].reshape(group.num_texts, group.length, *x.shape[1:]).transpose(0, 2, 1, 3)


def _attend_group(
    attended: Rows, query: Rows, key: Rows, value: Rows, *, bias: Rows | None, reach: int | None, can_overflow: bool
) -> None:
    """Fill attended (B, H, L, D), a part at a time."""
    for texts, heads, queries, keys in _parts(query.shape, reach):
        added = None if bias is None else bias[:, heads if bias.shape[1] > 1 else slice(None), queries, keys]
        if reach is not None:
            added = _window(queries, keys, reach)
        _attend_part(
            attended[texts, heads, queries],
            query[texts, heads, queries],
            key[texts, heads, keys],
            value[texts, heads, keys],
            added,
            can_overflow,
        )


def _parts(shape: tuple[int, ...], reach: int | None) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Texts, heads, queries and the keys they see of (B, H, L, D), with about NUM_SCORES scores together."""
    num_texts, num_heads, length, _ = shape
    num_seen = length if reach is None else min(length, _NUM_QUERIES + 2 * reach)
    num_queries = min(length, max(1, NUM_SCORES // length) if reach is None else _NUM_QUERIES)
    num_of_head = num_queries * num_seen
    step = min(num_heads, max(1, NUM_SCORES // num_of_head))
    texts = max(1, NUM_SCORES // (num_of_head * num_heads))
    for text, head, first in product(
        range(0, num_texts, texts), range(0, num_heads, step), range(0, length, num_queries)
    ):
        last = min(first + num_queries, length)
        keys = slice(0, length) if reach is None else slice(max(0, first - reach), min(last + reach, length))
        yield slice(text, text + texts), slice(head, head + step), slice(first, last), keys


def _window(queries: slice, keys: slice, reach: int) -> Rows:
    """What hides keys that are too far away."""
    distance = np.arange(queries.start, queries.stop)[:, None] - np.arange(keys.start, keys.stop)
    return np.where(np.abs(distance) <= reach, np.float32(0), np.float32(-np.inf))


def _attend_part(attended: Rows, query: Rows, key: Rows, value: Rows, added: Rows | None, can_overflow: bool) -> None:
    """Divided by their sum are the few attended values, and not the weights."""
    exponents = query @ key.swapaxes(-1, -2)
    if added is not None:
        exponents += added
    if can_overflow:
        exponents -= exponents.max(axis=-1, keepdims=True)
    weights = np.exp2(exponents, out=exponents)
    np.matmul(weights, value, out=attended)
    attended /= np.einsum("bhqk->bhq", weights)[..., None]


def _as_numpy(array: mx.array) -> Rows:
    """In float32; of an array that is, its own memory."""
    values: Rows = np.asarray(array.astype(mx.float32))
    return values
