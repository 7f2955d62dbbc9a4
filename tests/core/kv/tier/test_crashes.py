"""Writers that are killed at any point: the next process finds what they had written, and nothing else."""

import os
import random
import signal
import time
import warnings
from pathlib import Path

import pytest

from mlx_agent_llm.core.kv.tier.inspection import faults_in
from mlx_agent_llm.core.kv.tier.store import TierStore
from tests.support.tiers import is_right, key_of, open_store, put

MAX_BYTES = 400_000


@pytest.mark.parametrize("num_cycles", [4, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_whenever_a_writer_is_killed_nothing_wrong_is_read_and_nothing_is_left(tmp_path: Path, num_cycles: int) -> None:
    folder, rng, num_found, num_within = tmp_path / "kv", random.Random(0), 0, 0
    for cycle in range(num_cycles):
        child = fork()
        if child == 0:
            write_without_end(folder, cycle)
        num_found += read_for(folder, rng.uniform(0, 0.05), rng)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        num_within += bool(list(folder.glob("*.tmp")))
        store = open_store(folder, MAX_BYTES)
        assert store.is_writer, "a killed process holds the lock"
        num_found += read_all(store, rng)
        store.close()
        assert not list(folder.glob("*.tmp"))
        assert faults_in(folder) == []
        assert store.num_bytes <= MAX_BYTES
    assert num_found > 0
    assert num_within > 0 or num_cycles < 100, "no writer was killed while it wrote"


def fork() -> int:
    """The child touches files alone, which the threads that it has not do not matter to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def write_without_end(folder: Path, cycle: int) -> None:
    rng = random.Random(cycle)
    try:
        _write(folder, rng)
    finally:
        os._exit(1)  # not into the parent's tests


def _write(folder: Path, rng: random.Random) -> None:
    while True:
        store = open_store(folder, MAX_BYTES)
        for _ in range(rng.randint(1, 10)):
            chain = rng.randrange(20)
            begin = next((i for i in range(200) if not store.has(key_of(chain, i))), 200)
            put(store, chain, begin, begin + rng.randint(1, 8), length=1000)
        store.close()


def read_for(folder: Path, seconds: float, rng: random.Random) -> int:
    """Read beside a writer; how much was found."""
    until, num_found = time.monotonic() + seconds, 0
    store = open_store(folder, MAX_BYTES)
    store.close()  # or it may be the one who writes
    while time.monotonic() < until:
        store.refresh()
        num_found += read_all(store, rng)
    return num_found


def read_all(store: TierStore, rng: random.Random) -> int:
    num_found = 0
    for chain in rng.sample(range(20), 3):
        keys = [key_of(chain, i) for i in range(20)]
        contents = store.read(keys)
        assert all(is_right(key, content) for key, content in zip(keys, contents, strict=True))
        num_found += sum(content is not None for content in contents)
    return num_found
