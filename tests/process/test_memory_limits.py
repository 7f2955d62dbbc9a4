"""MLX's wired and cache limits: set on Metal while an engine is open, and given back."""

from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_agent_llm import Engine
from mlx_agent_llm.engine import worker
from mlx_agent_llm.models import from_parts
from mlx_agent_llm.process import device_memory
from mlx_agent_llm.process.device_memory import GIB
from mlx_agent_llm.process.memory_limits import MemoryLimits, describe_limits
from mlx_agent_llm.testing import ByteTokenizer, tiny_model

OWN_CACHE = 20 * GIB  # the limit before, as large as Metal's own
WIRED, CACHE = 12 * GIB, 12 * GIB // 16


class FakeWired:
    """MLX's wired limit, which exists on Metal alone."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit

    def set_to(self, limit: int) -> int:
        before, self.limit = self.limit, limit
        return before


@pytest.fixture
def cache_limit() -> Iterator[None]:
    before = mx.set_cache_limit(OWN_CACHE)
    yield
    mx.set_cache_limit(before)


@pytest.fixture
def wired(cache_limit: None, monkeypatch: pytest.MonkeyPatch) -> FakeWired:
    """A Mac of 16 GiB with a working set of 15; the cache limit is the real one."""
    fake = FakeWired()
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "set_wired_limit", fake.set_to)
    monkeypatch.setattr(device_memory, "physical_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(device_memory, "device_bytes", lambda device: 15 * GIB)
    monkeypatch.setattr(device_memory, "is_unified", lambda device: True)
    return fake


def cache() -> int:
    """MLX tells its limit only when it is changed."""
    limit = mx.set_cache_limit(0)
    mx.set_cache_limit(limit)
    return limit


def test_they_are_set_until_the_last_one_leaves(wired: FakeWired) -> None:
    limits = MemoryLimits()
    with limits:
        with limits:
            assert (wired.limit, cache()) == (WIRED, CACHE)
        assert (wired.limit, cache()) == (WIRED, CACHE)
    assert (wired.limit, cache()) == (0, OWN_CACHE)


def test_a_higher_wired_and_a_lower_cache_limit_of_the_user_s_stay(wired: FakeWired) -> None:
    wired.limit = 13 * GIB
    mx.set_cache_limit(1000)
    limits = MemoryLimits()
    with limits:
        assert (wired.limit, cache()) == (13 * GIB, 1000)
    assert (wired.limit, cache()) == (13 * GIB, 1000)


def test_what_the_user_sets_meanwhile_stays(wired: FakeWired) -> None:
    with MemoryLimits():
        wired.limit = 5
        mx.set_cache_limit(7)
    assert (wired.limit, cache()) == (5, 7)


def test_elsewhere_than_on_metal_nothing_is_set(cache_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    assert describe_limits() == "MLX's own"
    with MemoryLimits():
        assert cache() == OWN_CACHE


@pytest.mark.skipif(mx.cuda.is_available(), reason="CUDA's kernels cannot pass for Metal's")
def test_they_are_set_as_long_as_an_engine_is_open(wired: FakeWired, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = MemoryLimits()  # the process's own may be in the hands of an engine that other tests share
    monkeypatch.setattr(worker, "memory_limits", limits)
    assert describe_limits() == "12.0 GiB wired, 0.8 GiB of freed buffers, while an engine is open"
    first, second = (Engine(from_parts(tiny_model(), ByteTokenizer())) for _ in range(2))
    for engine in (first, second):
        engine.generate(["a"])  # now its thread runs for sure
        assert (wired.limit, cache()) == (WIRED, CACHE)
        engine.close()
    assert limits._num_inside == 0
    assert (wired.limit, cache()) == (0, OWN_CACHE)
