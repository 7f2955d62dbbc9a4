"""Random requests among faults, cancellations, timeouts, full pools and full queues: each is answered once."""

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_agent_llm import Engine, Handle
from mlx_agent_llm.request import Request
from tests.support.exact_model import ExactModel, Faults
from tests.support.ledger import Ledger, compare
from tests.support.traffic import Traffic, make_ask

MakeEngine = Callable[..., Engine]

NUM_REQUESTS = [1000, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]  # of each config
RATES = {"forward": 0.02, "sample": 0.02, "accept": 0.001, "reject": 0.001, "fill_mask": 0.001, "detokenize": 0.0005}
CONFIGS: list[dict[str, object]] = [
    {"max_num_seqs": 16, "max_tokens_per_step": 64},
    {"max_num_seqs": 8, "max_tokens_per_step": 48, "kv_cache_tokens": 256, "block_size": 8},
    {"max_num_seqs": 8, "max_tokens_per_step": 64, "kv_cache_tokens": 512, "block_size": 1, "max_queue": 8},
    {"max_num_seqs": 16, "max_tokens_per_step": 40, "kv_cache_tokens": 224, "prefix_cache": False},
    {"max_num_seqs": 4, "max_tokens_per_step": 256, "max_queue": 8},
]


@pytest.mark.parametrize("num_requests", NUM_REQUESTS)
@pytest.mark.parametrize("seed", range(len(CONFIGS)))
def test_each_of_thousands_of_random_requests_is_answered_once_and_rightly_and_nothing_is_left(
    make_engine: MakeEngine, seed: int, num_requests: int
) -> None:
    before = open_resources()
    faults = Faults(seed, **RATES)
    engine = make_engine(ExactModel(faults), **CONFIGS[seed])
    answers = rage(engine, faults, seed, num_requests, make_engine)
    assert open_resources() == before
    # How often is a matter of the machine; each has happened, far from never.
    assert all(faults.counts[place] >= 1 for place in ("forward", "sample"))
    assert all(answers[kind] >= 5 for kind in ("stop", "length", "GenerationError", "RequestTimeout", "cancelled"))
    assert answers["QueueFullError"] + answers["CapacityError"] >= 10 or seed == 0
    assert engine.stats().num_preemptions >= 5 or seed not in (1, 3)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 5))
def test_so_is_each_where_what_is_left_behind_goes_to_the_disk_and_comes_back(
    make_engine: MakeEngine, tmp_path: Path, seed: int
) -> None:
    before = open_resources()
    faults = Faults(seed, **RATES)
    config = CONFIGS[seed] | {"kv_tier": str(tmp_path / "kv"), "kv_tier_bytes": 50_000, "prefix_cache": True}
    engine = make_engine(ExactModel(faults), **config)
    rage(engine, faults, seed, 2000, make_engine)
    assert open_resources() == before
    stats = engine.stats().tier
    assert stats is not None and stats.num_written_bytes > 0 and stats.fault is None


def rage(engine: Engine, faults: Faults, seed: int, num_requests: int, make_engine: MakeEngine) -> Counter[str]:
    """Let the requests loose and check every answer; how often each kind of it was given."""
    ledger = Ledger()
    traffic = Traffic(engine, (make_ask(seed, number) for number in range(num_requests)))
    with faults.installed(), ledger.open():
        traffic.run(seconds=300 + num_requests / 10)
    engine.close()
    assert traffic.answered == Counter(range(num_requests))
    ledger.check(engine)
    undisturbed = make_engine(ExactModel(), max_queue=num_requests)
    compare(ledger.entries[::10], undisturbed)
    undisturbed.close()
    return traffic.answers


def open_resources() -> dict[str, int]:
    """What may not grow: threads, file descriptors, handles and requests that somebody still holds."""
    gc.collect()
    kinds = Counter(type(each).__name__ for each in gc.get_objects() if issubclass(type(each), Handle | Request))
    descriptors = Path("/proc/self/fd")
    num_descriptors = len(os.listdir(descriptors)) if descriptors.exists() else 0
    return {"threads": threading.active_count(), "file descriptors": num_descriptors} | kinds
