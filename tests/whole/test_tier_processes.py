"""Engines of several processes over one tier, some of which are killed: no token is wrong, and nothing is left."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from mlx_agent_llm import Engine, EngineConfig, SamplingParams
from mlx_agent_llm.core.kv.tier.inspection import faults_in
from mlx_agent_llm.testing import ByteTokenizer
from tests.support.exact_model import ExactModel

GREEDY = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
NUM_PROMPTS = 24
LONG = [pytest.mark.long, pytest.mark.timeout(7200)]


def open_engine(path: Path | None) -> Engine:
    """One whose pool and whose tier are too small for all prompts."""
    tier = {} if path is None else {"kv_tier": str(path), "kv_tier_bytes": 30_000}
    config = EngineConfig(max_num_seqs=4, kv_cache_tokens=512, check_model=False, **tier)  # type: ignore[arg-type]
    return Engine.from_parts(ExactModel(), ByteTokenizer(), config)


def prompt_of(number: int) -> list[int]:
    """Four of them begin alike."""
    group, own = random.Random(number // 4), random.Random(100 + number)
    return [group.randrange(256) for _ in range(90)] + [own.randrange(256) for _ in range(own.randrange(10, 100))]


@lru_cache
def expected() -> list[list[int]]:
    """What an engine says that has no tier."""
    with open_engine(None) as engine:
        return [output.token_ids for output in engine.generate([prompt_of(i) for i in range(NUM_PROMPTS)], GREEDY)]


def ask(engine: Engine, numbers: Sequence[int], right: Sequence[Sequence[int]]) -> int:
    """Some prompts at once; how many tokens of them were not computed."""
    outputs = engine.generate([prompt_of(number) for number in numbers], GREEDY)
    assert [output.token_ids for output in outputs] == [right[number] for number in numbers]
    return sum(output.usage.cached_tokens for output in outputs)


def some(rng: random.Random) -> list[int]:
    return rng.sample(range(NUM_PROMPTS), 4)


def serve(path: Path, seed: int, right: Sequence[Sequence[int]], num_engines: int | None, pipe: Connection) -> None:
    """A process: so many engines that answer, one after the other, or as many as there is time for."""
    rng = random.Random(seed)
    if num_engines is None:
        rename_slowly()
    for number in itertools.count() if num_engines is None else range(num_engines):
        with open_engine(path) as engine:
            tier = engine.stats().tier
            assert tier is not None
            if number == 0:
                pipe.send(tier.is_writer)
            for _ in range(20):
                ask(engine, some(rng), right)


def rename_slowly() -> None:
    """Let each file of this process have its first name for some milliseconds, so that a kill comes in between."""
    rename = Path.replace

    def slow_rename(path: Path, target: Path) -> Path:
        time.sleep(0.005)
        return rename(path, target)

    Path.replace = slow_rename  # type: ignore[method-assign,assignment]


def wait_for_a_write(path: Path, seconds: float) -> None:
    """Until a file is being written, but no longer than that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not any(name.endswith(".tmp") for name in os.listdir(path)):
        pass


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Forks of one process that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlx_agent_llm", __name__])
    yield context


@pytest.mark.parametrize("num_cycles", [2, pytest.param(500, marks=LONG)])
def test_whenever_a_process_is_killed_that_writes_the_next_engine_says_what_a_cold_one_says(
    tmp_path: Path, processes: ForkServerContext, num_cycles: int
) -> None:
    path, rng, num_cached, num_within = tmp_path / "kv", random.Random(0), 0, 0
    for cycle in range(num_cycles):
        mine, theirs = processes.Pipe()
        process = processes.Process(target=serve, args=(path, cycle, expected(), None, theirs))
        process.start()
        assert mine.recv(), "a process that was killed holds the lock"
        if cycle % 2:
            wait_for_a_write(path, seconds=rng.uniform(0, 0.5))
        else:
            with open_engine(path) as beside:
                num_cached += ask(beside, some(rng), expected())
        assert process.exitcode is None, "it has said something wrong"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        num_within += bool(list(path.glob("*.tmp")))
        with open_engine(path) as engine:
            num_cached += ask(engine, some(rng), expected())
            tier = engine.stats().tier
            assert tier is not None and tier.is_writer and tier.fault is None
        assert not list(path.glob("*.tmp"))
        assert faults_in(path) == []
    assert num_cached > 0
    assert num_within > 0 or num_cycles < 100, "no process was killed while it wrote"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_engines_of_two_processes_share_a_tier_and_take_turns_in_writing_it(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    path, rng, num_cached, num_written = tmp_path / "kv", random.Random(0), 0, 0
    mine, theirs = processes.Pipe()
    process = processes.Process(target=serve, args=(path, 1, expected(), 50, theirs))
    process.start()
    assert mine.recv()
    while process.is_alive():
        with open_engine(path) as engine:
            for _ in range(rng.randrange(1, 10)):
                num_cached += ask(engine, some(rng), expected())
        tier = engine.stats().tier
        assert tier is not None and tier.fault is None
        num_written += tier.num_written_bytes
    process.join()
    assert process.exitcode == 0
    assert num_cached > 0 and num_written > 0
    assert faults_in(path) == []
