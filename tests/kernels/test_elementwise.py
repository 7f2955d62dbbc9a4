"""exp and swiglu for the CPU against numpy in float64, at the ends of float32 too."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_kernels import elementwise


@pytest.fixture(autouse=True)
def on_the_cpu() -> None:
    mx.set_default_device(mx.Device(mx.cpu))


def test_exp_is_as_exact_as_mlxs_own() -> None:
    x = np.linspace(-87, 88, 100_001, dtype=np.float32)
    expected = np.exp(x.astype(np.float64))
    ours = np.abs(np.array(elementwise.exp_bounded(mx.array(x))) / expected - 1)
    theirs = np.abs(np.array(mx.exp(mx.array(x))) / expected - 1)
    assert ours.max() < 5e-6
    assert ours.max() < 1.2 * theirs.max()
    assert ours[np.abs(x) < 8].max() < 1e-6


def test_exp_of_what_float32_cannot_hold_is_zero() -> None:
    values = mx.array([-math.inf, -1e30, -200.0, -88.0, 0.0, -0.0])
    assert np.array(elementwise.exp_bounded(values)).tolist() == [0, 0, 0, 0, 1, 1]
    assert np.isnan(np.array(elementwise.exp_bounded(mx.array([math.nan])))).all()


@pytest.mark.parametrize("shape", [(1,), (7, 1, 33), (3, 5, 16, 2)])
def test_any_shape_may_follow_any_other(shape: tuple[int, ...]) -> None:
    gate, up = mx.random.normal(shape, key=mx.random.key(0)) * 4, mx.random.normal(shape, key=mx.random.key(1))
    wide = np.array(gate).astype(np.float64)
    expected = wide / (1 + np.exp(-wide)) * np.array(up)
    np.testing.assert_allclose(np.array(elementwise.swiglu(gate, up)), expected, rtol=1e-5, atol=1e-6)


def test_swiglu_of_large_gates_is_the_line_it_approaches() -> None:
    gates = mx.array([-1e4, -200.0, 200.0, 1e30])
    lines = np.array(elementwise.swiglu(gates, mx.ones(4)))
    np.testing.assert_allclose(lines, [0, 0, 200, np.float32(1e30)], atol=1e-30)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_other_types_are_left_to_mlx(dtype: mx.Dtype) -> None:
    x = -mx.abs(mx.random.normal((64,), key=mx.random.key(0))).astype(dtype)
    assert elementwise.exp_bounded(x).dtype == dtype
    assert mx.array_equal(elementwise.exp_bounded(x), mx.exp(x))
