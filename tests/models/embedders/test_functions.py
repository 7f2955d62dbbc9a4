"""The functions of a CPU beside MLX's own."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import erf as exact_erf

from mlx_agent_llm.models.embedders.functions import CPU, GPU, erf, exp_of_negative


def test_erf_and_exp_are_exact_to_what_they_promise() -> None:
    x = np.linspace(-10, 10, 100_001, dtype=np.float32)
    assert np.abs(np.array(erf(mx.array(x))) - exact_erf(x.astype(np.float64))).max() < 5e-7
    negative = -np.abs(x) * 100
    assert np.abs(np.array(exp_of_negative(mx.array(negative))) - np.exp(negative.astype(np.float64))).max() < 2e-6


def test_gelu_is_that_of_mlx() -> None:
    x = mx.linspace(-20, 20, 10_001)
    np.testing.assert_allclose(CPU.gelu(x), GPU.gelu(x), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_is_that_of_mlx_also_where_padding_would_score_highest(has_bias: bool) -> None:
    query, key, value = (5 * mx.random.normal((3, 4, 20, 8)) for _ in range(3))
    lengths = mx.array([20, 1, 7])
    real = mx.arange(20)[None, None, None] < lengths[:, None, None, None]
    key = mx.where(real.swapaxes(-1, -2), key, 1000.0)
    bias = mx.random.normal((1, 4, 20, 20)) if has_bias else None
    ours, theirs = (functions.attend(query, key, value, real, bias) for functions in (CPU, GPU))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
