"""Keys and values in their slots, in the shapes that models have; test_layer_kernels_on_host.py runs the kernel too."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_kernels import UnsupportedKernelError, backend, write_pools
from mlx_agent_kernels.checks import check_writes_kernel


@dataclass(frozen=True)
class Writes:
    """Random contents for some slots of pools of ones."""

    tokens: int = 5
    kv_heads: int = 2
    dims: tuple[int, ...] = (64, 64)  # of keys, and of values if any
    dtype: mx.Dtype = mx.float32
    content_dtype: mx.Dtype | None = None

    def check(self) -> None:
        rng = np.random.default_rng(0)
        slots = rng.permutation(2 * self.tokens)[: self.tokens].astype(np.int32)
        pools = [mx.ones((2 * self.tokens, self.kv_heads, dim), dtype=self.dtype) for dim in self.dims]
        mx.eval(pools)
        shapes = [(self.tokens, self.kv_heads, dim) for dim in self.dims]
        contents = [mx.array(rng.normal(size=shape)).astype(self.content_dtype or self.dtype) for shape in shapes]
        written_pools, written = write_pools(pools, mx.array(slots), contents)
        if written is not None:
            assert written.dtype == self.dtype
            np.testing.assert_array_equal(np.array(written.astype(mx.float32)), [0])
        for pool, content in zip(written_pools, contents, strict=True):
            expected = np.ones(pool.shape)
            expected[slots] = np.array(content.astype(self.dtype).astype(mx.float32))
            np.testing.assert_array_equal(np.array(pool.astype(mx.float32)), expected)


WRITES = {
    "plain": Writes(),
    "of one token": Writes(tokens=1, kv_heads=1, dims=(8, 8)),
    "of float16": Writes(dtype=mx.float16, kv_heads=4, dims=(80, 80)),
    "of bfloat16": Writes(dtype=mx.bfloat16, kv_heads=3, dims=(128, 128)),
    "values of another width": Writes(dims=(96, 40), tokens=7),
    "latents, which are all": Writes(dims=(72,), kv_heads=1, dtype=mx.float16),
    "contents of another type": Writes(dtype=mx.bfloat16, content_dtype=mx.float32),
    "of many tokens": Writes(tokens=70, kv_heads=1, dims=(256, 256)),
}


@pytest.mark.parametrize("name", WRITES)
def test_keys_and_values_stand_in_their_slots_and_all_others_are_as_they_were(name: str) -> None:
    WRITES[name].check()


@pytest.mark.skipif(backend() != "reference", reason="on a CPU, MLX writes")
def test_on_a_cpu_nothing_is_to_be_waited_for() -> None:
    pool = mx.zeros((4, 1, 8))
    assert write_pools([pool], mx.array([1]), [mx.ones((1, 1, 8))]).written is None


@pytest.mark.parametrize(
    ("pools", "slots", "contents", "message"),
    [
        ([], (2,), [], "pools must be 1 or 2, with contents each; got 0 and 0"),
        ([(4, 1, 8)], (2,), [(2, 1, 8)] * 2, "got 1 and 2"),
        ([(4, 1, 8)], (2, 1), [(2, 1, 8)], r"slot_mapping must be \(tokens,\).*\(2, 1\)"),
        ([(4, 1, 8), (5, 1, 8)], (2,), [(2, 1, 8)] * 2, r"as many slots and heads.*\(4, 1, 8\) and \(5, 1, 8\)"),
        ([(4, 1, 8)], (2,), [(3, 1, 8)], r"contents must be.*\(3, 1, 8\) and \(2,\) and \(4, 1, 8\)"),
        ([(4, 1, 8)], (2,), [(2, 1, 9)], r"contents must be.*\(2, 1, 9\)"),
    ],
)
def test_contents_that_do_not_fit_are_refused_by_the_shapes(
    pools: list[tuple[int, ...]], slots: tuple[int, ...], contents: list[tuple[int, ...]], message: str
) -> None:
    arrays = [mx.zeros(shape) for shape in pools], mx.zeros(slots, dtype=mx.int32), [mx.zeros(c) for c in contents]
    with pytest.raises(ValueError, match=message):
        write_pools(*arrays)


def test_pools_of_types_that_the_kernel_does_not_write_are_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"float32, float16: .* one of float32, float16, bfloat16"):
        check_writes_kernel([mx.zeros((4, 1, 8)), mx.zeros((4, 1, 8), dtype=mx.float16)])
    with pytest.raises(UnsupportedKernelError, match="pools of int32"):
        check_writes_kernel([mx.zeros((4, 1, 8), dtype=mx.int32)])
