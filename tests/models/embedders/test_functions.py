"""The functions of a CPU beside exact ones and MLX's own."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import ndtr

from mlx_agent_llm.models.embedders import functions
from mlx_agent_llm.models.embedders.functions import CPU, GPU


def test_gelu_is_exact_to_what_it_promises() -> None:
    x = np.linspace(-20, 20, 400_001, dtype=np.float32)
    exact = x * ndtr(x.astype(np.float64))
    assert np.abs(np.array(CPU.gelu(mx.array(x))) - exact).max() < 4e-6
    assert CPU.gelu(mx.array([1e30, -1e30])).tolist() == mx.array([1e30, 0]).tolist()


def test_gelu_leaves_its_argument_and_keeps_its_type() -> None:
    x = mx.linspace(-2, 2, 12).reshape(3, 4)
    _, right = mx.split(x, 2, axis=-1)  # a part of other memory
    before = np.array(x)
    for argument in (right, right.astype(mx.bfloat16)):
        assert CPU.gelu(argument).dtype == argument.dtype
        np.testing.assert_allclose(
            CPU.gelu(argument).astype(mx.float32), GPU.gelu(right), atol=1e-5 if argument is right else 1e-2
        )
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("max_scores", [2**22, 700, 1])  # all queries of 240 scores each at once, some, one
@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_is_that_of_mlx_also_where_padding_would_score_highest(
    has_bias: bool, max_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "MAX_SCORES", max_scores)
    query, key, value = (5 * mx.random.normal((3, 4, 20, 8)) for _ in range(3))
    lengths = mx.array([20, 1, 7])
    real = mx.arange(20)[None, None, None] < lengths[:, None, None, None]
    key = mx.where(real.swapaxes(-1, -2), key, 1000.0)
    bias = mx.random.normal((1, 4, 20, 20)) if has_bias else None
    ours, theirs = (of_device.attend(query, key, value, real, bias) for of_device in (CPU, GPU))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
