"""The functions of a CPU beside exact ones and MLX's own."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from scipy.special import expit, ndtr

from mlx_agent_llm.models.embedders import TextBatch, numpy_functions
from mlx_agent_llm.models.embedders.functions import ACTIVATIONS, Functions, Heads
from mlx_agent_llm.models.embedders.mlx_functions import MLXFunctions
from mlx_agent_llm.models.embedders.numpy_functions import NumpyFunctions, Rows

LENGTHS = [20, 1, 7, 0, 20, 7, 3]
X = np.linspace(-20, 20, 400_001, dtype=np.float32)
EXACT = {
    "gelu": X * ndtr(X.astype(np.float64)),
    "gelu_new": X * expit(2 * math.sqrt(2 / math.pi) * (X + 0.044715 * X.astype(np.float64) ** 3)),
    "silu": X * expit(X.astype(np.float64)),
}


def activated(name: str, x: Rows) -> Rows:
    result: Rows = NumpyFunctions().activate(name, x.reshape(-1, 1).copy())
    return result[:, 0]


@pytest.mark.parametrize("name", EXACT)
def test_activations_are_exact_to_what_they_promise(name: str) -> None:
    assert np.abs(activated(name, X) - EXACT[name]).max() < 4e-6
    ends = np.array([1e30, -1e30], np.float32)
    np.testing.assert_array_equal(activated(name, ends), [ends[0], 0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_take_a_part_of_wider_values_and_leave_the_rest(name: str) -> None:
    both = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    before = both.copy()
    left = NumpyFunctions().activate(name, both[:, :500])
    expected = NumpyFunctions().activate(name, before[:, :500].copy())
    np.testing.assert_array_equal(left, expected)
    np.testing.assert_array_equal(both[:, 500:], before[:, 500:])


def attend(functions: Functions, arrays: list[mx.array], heads: Heads, bias: mx.array | None) -> mx.array:
    """Through the layout of padded texts, and zeros for padding."""
    lengths = mx.array(LENGTHS)
    texts = TextBatch(mx.zeros((len(LENGTHS), max(LENGTHS)), mx.int32), lengths, lengths)
    layout = functions.lay_out(texts)
    values = [functions.enter(array, layout) for array in arrays]
    own_bias = None if bias is None else functions.bias(bias)
    attended = functions.leave(functions.attend(*values, layout, heads, own_bias), layout)
    return mx.where(texts.are_real[..., None], attended, 0)


@pytest.mark.parametrize("num_scores", [2**19, 900, 50, 1])  # of several texts, heads or queries at once, one query
@pytest.mark.parametrize("num_biases", [0, 1, 4])
@pytest.mark.parametrize(
    ("num_kv_heads", "rotary_base", "spread"), [(4, None, 1.0), (2, 100.0, 1.0), (4, None, 20.0)]
)  # the last one's scores are beyond float32 as exponents
def test_attention_is_that_of_mlx_also_where_padding_would_score_highest(
    num_kv_heads: int,
    rotary_base: float | None,
    spread: float,
    num_biases: int,
    num_scores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numpy_functions, "NUM_SCORES", num_scores)
    shape = len(LENGTHS), max(LENGTHS)
    query = spread * mx.random.normal((*shape, 4 * 8))
    key, value = (spread * mx.random.normal((*shape, num_kv_heads * 8)) for _ in range(2))
    is_real = mx.arange(shape[1])[None, :, None] < mx.array(LENGTHS)[:, None, None]
    key = mx.where(is_real, key, 1000.0)
    bias = mx.random.normal((1, num_biases, shape[1], shape[1])) if num_biases else None
    heads = Heads(4, num_kv_heads, 8**-0.5, rotary_base)
    ours, theirs = (
        attend(functions, [query, key, value], heads, bias) for functions in (NumpyFunctions(), MLXFunctions())
    )
    assert np.isfinite(np.array(ours)).all()
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * spread)


@pytest.mark.parametrize("num_queries", [64, 5, 1])
@pytest.mark.parametrize("reach", [0, 3, 30])
def test_attention_to_a_window_is_that_of_mlx(reach: int, num_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_functions, "_NUM_QUERIES", num_queries)
    arrays = [mx.random.normal((len(LENGTHS), max(LENGTHS), 4 * 8)) for _ in range(3)]
    heads = Heads(4, 4, 8**-0.5, rotary_base=50.0, reach=reach)
    ours, theirs = (attend(functions, arrays, heads, None) for functions in (NumpyFunctions(), MLXFunctions()))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_weights_of_bfloat16_are_computed_with_in_float32() -> None:
    linear = nn.Linear(6, 5)
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    linear.apply(lambda weight: weight.astype(mx.bfloat16))
    product = NumpyFunctions().linear(linear, x)
    linear.apply(lambda weight: weight.astype(mx.float32))
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, linear(mx.array(x)), atol=1e-5)
