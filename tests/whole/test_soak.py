"""Hours of random traffic with faults: memory must not grow with the time that an engine is up."""

import ctypes
import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import pytest

from mlx_agent_llm import Engine
from tests.support.exact_model import ExactModel, Faults
from tests.support.ledger import Ledger, check_entry
from tests.support.traffic import Traffic, make_ask

MakeEngine = Callable[..., Engine]

SECONDS = float(os.environ.get("SOAK_SECONDS", 1800))
WARM_UP = 0.25  # of the time: until every kind of request, fault and batch was seen, memory rightly grows
NUM_REQUESTS = 1000  # of a round
RATES = {"forward": 0.002, "sample": 0.002, "accept": 0.001, "reject": 0.001, "fill_mask": 0.001, "detokenize": 0.0005}
STATUS = Path("/proc/self/statm")


class Sample(NamedTuple):
    """What the process holds at a time; bytes, without what malloc and Python could give back at once."""

    seconds: float
    resident: int
    in_use: int  # allocated in all of malloc's arenas, without what MLX keeps for arrays to come
    cached: int  # what MLX keeps, which has a limit of its own


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from /proc")
def test_memory_grows_by_less_than_one_percent_after_the_warm_up(make_engine: MakeEngine) -> None:
    faults = Faults(0, **RATES)
    engine = make_engine(ExactModel(faults), max_num_seqs=12, max_tokens_per_step=64, kv_cache_tokens=1024)
    began, samples = time.monotonic(), list[Sample]()
    while not samples or samples[-1].seconds < SECONDS:
        rage(engine, faults, len(samples))
        samples.append(measure(time.monotonic() - began))
        print(samples[-1], flush=True)
    warm = [sample for sample in samples if sample.seconds > WARM_UP * SECONDS]
    third = len(warm) // 3
    assert third >= 2, "too short a time to tell growth from noise"
    assert max(sample.cached for sample in samples) <= cache_limit()
    for kind in ("resident", "in_use"):
        sizes = [getattr(sample, kind) for sample in warm]
        assert sum(sizes[-third:]) <= 1.01 * sum(sizes[:third]), f"{kind}: {sizes}"


def rage(engine: Engine, faults: Faults, number: int) -> None:
    """One round, of which nothing is kept."""
    ledger = Ledger()
    traffic = Traffic(engine, (make_ask(number, i) for i in range(NUM_REQUESTS)))
    with faults.installed(), ledger.open():
        traffic.run()
    assert traffic.answered == Counter(range(NUM_REQUESTS))
    for entry in ledger.entries:
        check_entry(entry, engine.max_model_len)


def measure(seconds: float) -> Sample:
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    resident = int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    libc.mallinfo2.restype = _MallocInfo
    info = libc.mallinfo2()
    cached = mx.get_cache_memory()
    return Sample(seconds, resident, info.uordblks + info.hblkhd - cached, cached)


def cache_limit() -> int:
    """MLX tells its limit only when it is changed."""
    limit = mx.set_cache_limit(2**25)
    mx.set_cache_limit(limit)
    return int(limit)


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )
