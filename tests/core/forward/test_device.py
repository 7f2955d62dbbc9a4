import math

import mlx.core as mx
import pytest

from mlx_agent_kernels import backend
from mlx_agent_llm.core.forward.device import CPU, CUDA, METAL, DeviceProfile, profile_here
from mlx_agent_llm.core.kv.layer_shape import KVShape
from mlx_agent_llm.core.kv.memory import PoolSizes

SHAPES = [KVShape(8, 128, 128, mx.float16), KVShape(8, 64, 64, mx.float16)]  # 3,072 bytes a token on average


def test_the_profile_is_that_of_the_default_device(on_the_cpu: None) -> None:
    assert profile_here() is CPU
    assert backend() == CPU.backend


def test_every_backend_has_its_own_profile() -> None:
    assert {profile.backend for profile in (CPU, CUDA, METAL)} == {"reference", "cuda", "metal"}


@pytest.mark.parametrize("profile", [CPU, CUDA, METAL], ids=lambda profile: profile.backend)
def test_what_is_told_in_bytes_and_tokens_is_counted_in_blocks(profile: DeviceProfile) -> None:
    packing = profile.packing(SHAPES, PoolSizes(100), 16, in_buckets=True)
    assert packing.padding_block == 100 and packing.in_buckets
    assert packing.costs.launches == profile.level_bytes / (16 * 3072)
    assert 0 <= 16 * packing.warm_blocks - profile.warm_tokens < 16
    assert packing.max_row_chunk == profile.max_row_chunk and packing.warm_rows == profile.warm_rows


def test_chunks_whose_attention_copies_what_it_sees_are_no_rows() -> None:
    for odd in (
        KVShape(1, 512, 64, mx.float16, is_latent=True),
        KVShape(8, 192, 128, mx.float16),
        KVShape(1, 512, 512, mx.float16),
        KVShape(8, 64, 64, mx.float16, is_gathered=True),
    ):
        packing = CUDA.packing([*SHAPES, odd], PoolSizes(100), 16, in_buckets=True)
        assert packing.max_row_chunk == 1
        assert (packing.costs.launches == math.inf) == odd.is_gathered
        assert (packing.kernel_sizes.two_levels is None) == odd.is_gathered
