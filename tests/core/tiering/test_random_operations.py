"""Random operations on schedulers with a tier: whatever came from the disk, a request sees the KV of its own tokens."""

import math
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import numpy as np
import pytest

from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.kv.tier import writer
from mlx_agent_llm.core.kv.tier.segment import Bytes
from mlx_agent_llm.core.kv.tier.store import TierStore
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.core.step_clock import StepClock
from mlx_agent_llm.core.tiering import plan, restore, spill, tiering
from mlx_agent_llm.core.tiering.contents import Kind, Read
from mlx_agent_llm.core.tiering.rates import ReadingRates, Way
from mlx_agent_llm.core.tiering.tiering import Tier, Tiering
from tests.core.kv.tier.test_store import flip
from tests.core.schedule.test_groups import GroupsMachine
from tests.core.schedule.test_scheduler import MAX_MODEL_LEN

MODEL = b"m" * 16
WEIGHTS = [10, 2, 10, 2, 0.2, 0.2, 3, 0.5]


class SlowExecutor:
    """Threads of which one goes on whenever a test says so; the oldest call need not be the first."""

    opened: ClassVar[list["SlowExecutor"]] = []

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        self._is_ordered = max_workers == 1
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.opened.append(self)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.append((future, lambda: function(*arguments)))
        return future

    def go_on(self, rng: random.Random) -> None:
        for _ in range(rng.randrange(4)):
            if self._calls:
                self._run(0 if self._is_ordered else rng.randrange(len(self._calls)))

    def shutdown(self, cancel_futures: bool = False) -> None:
        while self._calls and not cancel_futures:
            self._run(0)

    def _run(self, index: int) -> None:
        future, call = self._calls.pop(index)
        if future.set_running_or_notify_cancel():
            future.set_result(call())


class NamedContents:
    """In the place of arrays: the tokens that the content of each slot depends on."""

    layout = b""

    def __init__(self, machine: "TierMachine", block_size: int) -> None:
        self._machine = machine
        self._block_size = block_size

    def block_bytes(self, kind: Kind) -> int:
        return 100

    def read_blocks(self, kind: Kind, block_ids: Sequence[int]) -> list[Read]:
        slots = self._slots(kind)
        return [_read([slots[slot] for slot in self._range(block_id)]) for block_id in block_ids]

    def write_blocks(self, kind: Kind, block_ids: Sequence[int], contents: Sequence[Bytes]) -> None:
        for block_id, content in zip(block_ids, contents, strict=True):
            self._slots(kind).update(zip(self._range(block_id), pickle.loads(content.tobytes()), strict=True))

    def read_state(self, slot: int) -> Read | None:
        return _read(self._machine.states[slot]) if slot in self._machine.states else None

    def write_state(self, slot: int, content: Bytes) -> None:
        self._machine.states[slot] = pickle.loads(content.tobytes())

    def _slots(self, kind: Kind) -> dict[int, Any]:
        return self._machine.window_slots if kind == "window" else self._machine.slots

    def _range(self, block_id: int) -> range:
        return range(block_id * self._block_size, (block_id + 1) * self._block_size)


def _read(content: object) -> Read:
    return Read(np.frombuffer(pickle.dumps(content), np.uint8), True)


class TierMachine(GroupsMachine):
    """The machine of all groups, with a folder that outlives what is in memory."""

    def __init__(self, tally: Counter[str]) -> None:
        super().__init__(tally)
        self.path = Path(mkdtemp(prefix="tier"))
        self.tier: Tiering | None = None

    def restart(self) -> None:
        """All that is open ends, and what was in memory is gone."""
        self._tally["operations"] += 1
        for request in list(self.open):
            self._finish(request)
        self._close()
        kv, num_slots, num_window_blocks, snapshot_tokens = self.kv, 0, 0, 512
        if kv.states is not None:
            num_slots, snapshot_tokens = kv.states.pool.num_blocks, kv.states._snapshot_tokens or 512
        if kv.windows is not None:
            num_window_blocks = kv.windows.pool.num_blocks
        sizes = PoolSizes(kv.pool.num_blocks, num_slots, num_window_blocks, self.window)
        self.kv = KVManager(sizes, kv.block_size, prefix_cache=kv.prefix_cache, snapshot_tokens=snapshot_tokens)
        self.scheduler = Scheduler(self.config, self.kv, MAX_MODEL_LEN)
        self.in_flight, self.slots, self.window_slots, self.states = {}, {}, {}, {}

    def damage(self, rng: random.Random) -> None:
        """Flip a bit of a segment."""
        self._tally["operations"] += 1
        if files := sorted(self.path.glob("*.kv")):
            file = rng.choice(files)
            flip(file, rng.randrange(8 * file.stat().st_size))

    def do_something(self, rng: random.Random) -> None:
        match rng.choices(["add", "fork", "step", "cancel", "fail", "reset", "restart", "damage"], WEIGHTS)[0]:
            case "add":
                own = [rng.randrange(3) for _ in range(rng.randrange(7))]
                salt = rng.choice([None, None, "salt"])
                self.add(rng.randrange(3), rng.randint(10, 50), own, rng.randint(1, 20), rng.choice([0, 0, 1]), salt)
            case "fork":
                flags = rng.random() < 0.5, rng.random() < 0.5
                self.fork(rng.randrange(9), *flags, rng.randint(1, 20), rng.choice([0, 2]), rng.randint(1, 3), 1)
            case "step":
                self.step(rng.randrange(2**16), rng.randint(1, 10))
            case "cancel":
                self.cancel(rng.randrange(10))
            case "fail":
                self.fail_a_step(0)
            case "reset":
                self.reset_the_prefix_cache(0)
            case "restart":
                self.restart()
            case "damage":
                self.damage(rng)
        self.every_block_and_every_request_is_in_one_place()

    def teardown(self) -> None:
        super().teardown()
        self._close()
        shutil.rmtree(self.path)

    def _step(self, rng: random.Random) -> None:
        if self.kv.prefix_cache:
            self.tier = self.tier or self._open()
            for executor in SlowExecutor.opened:
                executor.go_on(rng)
            self.tier.step()
            released = [
                request for request in self.scheduler.running if request.read_from > request.kv.num_computed_tokens
            ]
            self._tally["computed until both meet"] += len(released)
        super()._step(rng)

    def _open(self) -> Tiering:
        SlowExecutor.opened = []
        store = TierStore(self.path, 20_000, MODEL, "a model")
        runner: Any = self
        return Tiering(Tier(store, MODEL), self.kv, runner, self.scheduler, StepClock(1), self.config.max_num_seqs)

    def _close(self) -> None:
        if self.tier is not None:
            self._tally["read tokens"] += self.tier.stats().num_hit_tokens
            self.tier.close()
            assert self.tier.stats().fault is None
            self.tier = None


_ways = random.Random(0)


def choose(*numbers: object) -> Way:
    """Any way, whatever anything took."""
    ways = [Way("read", 0, math.inf), Way("read", 0, 0.0), Way("compute", 0, 0.0)]
    return _ways.choice([*ways, *(Way("both", count, 0.0) for count in (0, 5, 20))])


@pytest.fixture
def any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that go on at any moment, and no waiting for them."""
    for module in (restore, writer):
        monkeypatch.setattr(module, "ThreadPoolExecutor", SlowExecutor)
    for module in (restore, spill):
        monkeypatch.setattr(module, "_SECONDS", 0)
    monkeypatch.setattr(spill, "_TIMES_AS_LONG", 0)
    monkeypatch.setattr(plan, "PIECE_BYTES", 1)
    monkeypatch.setattr(tiering, "Contents", NamedContents)
    monkeypatch.setattr(ReadingRates, "choose", choose)


@pytest.mark.usefixtures("any_pace")
@pytest.mark.parametrize(
    "num_operations", [1000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]
)
def test_no_random_operations_let_anybody_see_the_kv_of_other_tokens(num_operations: int) -> None:
    tally: Counter[str] = Counter()
    rng = random.Random(num_operations)
    while tally["operations"] < num_operations:
        machine = TierMachine(tally)
        machine.make(
            pool_tokens=rng.randint(70, 200),
            block_size=rng.choice([1, 2, 4, 8]),
            max_num_seqs=rng.randint(1, 5),
            spare_budget=rng.randint(0, 40),
            prefix_cache=True,
            window=rng.choice([0, 0, 5, 12, 17]),
            num_spare_window_blocks=rng.randint(0, 20),
            num_slots=rng.choice([0, 0, 3, 6, 12]),
            snapshot_tokens=rng.choice([4, 16, 512]),
        )
        for _ in range(60):
            machine.do_something(rng)
        machine.teardown()
    assert tally["read tokens"] >= num_operations / 200, tally
    assert tally["computed until both meet"] >= num_operations / 200, tally
