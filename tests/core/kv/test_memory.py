"""How memory is divided among layers that see everything, layers that see a window, and states."""

from collections.abc import Sequence

import mlx.core as mx
import pytest

from mlx_agent_llm import EngineConfig
from mlx_agent_llm.core.kv import memory
from mlx_agent_llm.core.kv.layer_shape import ArrayShape, KVShape, LayerShape, StateShape
from mlx_agent_llm.core.kv.memory import PoolSizes, default_pool_bytes, kv_bytes, pool_sizes
from mlx_agent_llm.errors import CapacityError

FULL = KVShape(1, 8, 8, mx.float32)  # 64 bytes a token, 1,024 a block
WINDOWED = FULL._replace(window=33)
STATE = StateShape((ArrayShape((1, 100, 10), mx.float32),))  # 4,000 bytes
CPU = mx.Device(mx.cpu)
WINDOW_BLOCKS = 2 * (4 * (2 + 2) + 2)  # of 4 requests, and of 32 tokens that a step computes


def sizes(shapes: Sequence[LayerShape], max_model_len: int = 10_000, **config: int) -> PoolSizes:
    settings = EngineConfig(max_num_seqs=4, max_tokens_per_step=32, **config)  # type: ignore[arg-type]
    return pool_sizes(shapes, settings, max_model_len, CPU)


def test_layers_that_see_everything_get_all_of_it() -> None:
    assert sizes([FULL] * 2, kv_cache_bytes=204_800) == PoolSizes(100)
    assert sizes([FULL] * 2, max_model_len=32, kv_cache_bytes=204_800) == PoolSizes(8), "no more than 4 full contexts"


def test_a_configured_number_of_tokens_is_kept_whatever_contexts_and_the_default_size_need() -> None:
    assert sizes([FULL] * 2, max_model_len=32, kv_cache_tokens=10_000) == PoolSizes(625)
    assert sizes([FULL._replace(kv_heads=2**20)], kv_cache_tokens=1600) == PoolSizes(100), "2**26 bytes a token"


def test_layers_that_see_a_window_get_what_running_requests_take_twice() -> None:
    found = sizes([WINDOWED] * 3 + [FULL], kv_cache_bytes=512_000)
    assert found == PoolSizes(500 - 3 * WINDOW_BLOCKS, 0, WINDOW_BLOCKS, 33)
    assert sizes([WINDOWED] * 3 + [FULL], kv_cache_tokens=1600) == PoolSizes(100, 0, WINDOW_BLOCKS, 33)
    assert sum(kv_bytes(found, [WINDOWED] * 3 + [FULL], 16)) == 512_000


@pytest.mark.parametrize("config", [{"kv_cache_tokens": 16 * WINDOW_BLOCKS}, {"kv_cache_bytes": 2048 * WINDOW_BLOCKS}])
def test_where_tables_of_their_own_would_save_nothing_they_share_the_others(config: dict[str, int]) -> None:
    assert sizes([WINDOWED, FULL], **config) == PoolSizes(WINDOW_BLOCKS)


def test_a_window_that_no_context_exceeds_is_none() -> None:
    assert sizes([WINDOWED, FULL], max_model_len=33, kv_cache_bytes=2_048_000) == PoolSizes(12)


def test_states_get_at_most_half_and_no_more_than_requests_and_snapshots_need() -> None:
    assert sizes([STATE, FULL], kv_cache_bytes=100_000).num_slots == 12
    found = sizes([STATE, FULL], kv_cache_bytes=1_000_000, max_state_snapshots=10)
    assert found == PoolSizes((1_000_000 - 18 * 4000) // 1024, 18)


def test_a_model_that_keeps_states_alone_has_blocks_that_take_no_memory() -> None:
    found = sizes([STATE], kv_cache_bytes=100_000)
    assert found == PoolSizes(4 * 625, 12)
    assert kv_bytes(found, [STATE], 16) == (0, 0, 48_000)


def test_the_caches_of_a_draft_model_get_their_part_of_a_default_pool_and_come_beside_a_configured_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "CPU_POOL_BYTES", 204_800)
    default = pool_sizes([FULL] * 2, EngineConfig(), 10_000, CPU, draft_token_bytes=2 * FULL.num_bytes)
    assert default == PoolSizes(50)
    configured = EngineConfig(kv_cache_bytes=204_800)
    assert pool_sizes([FULL] * 2, configured, 10_000, CPU, draft_token_bytes=64) == PoolSizes(100)


def test_weights_that_are_not_read_yet_make_a_default_pool_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_bytes", lambda device: 10_000)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    assert default_pool_bytes(mx.Device(mx.gpu)) == 5400
    assert default_pool_bytes(mx.Device(mx.gpu), 4000) == 3000
    assert pool_sizes([FULL], EngineConfig(), 10_000, mx.Device(mx.gpu), 4000) == PoolSizes(2)


def test_too_little_for_two_states_is_refused_in_numbers() -> None:
    with pytest.raises(CapacityError, match=r"holds 1 states of the recurrent layers.*one takes 4000 bytes"):
        sizes([STATE, FULL], kv_cache_bytes=12_000)
