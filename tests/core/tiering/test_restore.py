"""How blocks come back from the disk: beside what runs, and waited for only where that is faster than computing."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from mlx_agent_llm import SamplingParams
from mlx_agent_llm.core.kv.tier import store as store_module
from mlx_agent_llm.core.kv.tier.folder import TierFolder
from mlx_agent_llm.core.loop import EngineCore
from mlx_agent_llm.core.schedule.schedule import Schedule
from mlx_agent_llm.core.tiering import plan, rates
from mlx_agent_llm.core.tiering.rates import Way
from mlx_agent_llm.core.tiering.restore import Restore
from mlx_agent_llm.request import Request
from tests.support.tiered_cores import MODELS, NUM_NEW, assert_is_right, block_bytes, make_core, prompts, run, serve

BOTH = Way("both", 50, 0.0)
BLOCK_SECONDS = 0.2  # that a block takes to be read or computed where that is slowed down


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PIECE_BYTES", 1)  # of a block each


def restore_of(core: EngineCore) -> Restore:
    assert core._tiering is not None
    return core._tiering._restore


def greedy(number: int, prompt: list[int], max_tokens: int = NUM_NEW) -> Request:
    params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
    return Request(number, prompt, params, 0, lambda delta: None)


def hold_reads(core: EngineCore, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What is read arrives when this is set."""
    gate, read = threading.Event(), restore_of(core)._store.read
    monkeypatch.setattr(restore_of(core)._store, "read", lambda keys: read(keys) if gate.wait(60) else [])
    return gate


def wait_for_reads(core: EngineCore) -> None:
    wait([future for job in restore_of(core)._jobs for _, future in job.reading])


@pytest.mark.parametrize(
    "model_type",
    [each if each in ("llama", "qwen3_next") else pytest.param(each, marks=pytest.mark.long) for each in MODELS],
)
def test_a_prompt_is_computed_from_its_head_while_its_end_is_read_until_both_meet(
    path: Path, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asked] = prompts(1)
    serve(path, [asked], model_type)
    core = make_core(path, model_type)
    monkeypatch.setattr(restore_of(core)._rates, "choose", lambda *numbers: BOTH)
    request, gate = greedy(0, asked), hold_reads(core, monkeypatch)
    core.add(request)
    computed = []
    for _ in range(2):
        core.step()
        computed.append(request.kv.num_computed_tokens)
    assert computed == [32, 48], "whole blocks, as many in a step as readers can keep up with, and no more in all"
    gate.set()
    while restore_of(core).has_work:
        wait_for_reads(core)
        restore_of(core).step(core.scheduler.running, core.scheduler.waiting)
    assert request.read_from <= 48
    while core.has_work:
        core.step()
    core.check_integrity()
    assert request.num_cached_tokens == 128 - 48
    assert_is_right([request], model_type)
    core.close()


@pytest.mark.long
def test_from_a_disk_that_is_as_slow_as_computing_a_prompt_comes_sooner_than_by_either_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asked] = prompts(1)
    serve(path, [asked], "deepseek_v3")
    seconds = {}
    for name, way in {"read": Way("read", 0, math.inf), "compute": Way("compute", 128, 0.0), "chosen": None}.items():
        core = make_core(path, "deepseek_v3")
        assert core._tiering is not None
        read, schedule = restore_of(core)._store.read, core.scheduler.schedule
        monkeypatch.setattr(restore_of(core)._store, "read", slow(read, lambda read: 4 * BLOCK_SECONDS))
        monkeypatch.setattr(
            core.scheduler, "schedule", slow(schedule, lambda made: BLOCK_SECONDS * num_blocks_in(made))
        )
        monkeypatch.setattr(core._tiering, "_tokens_per_second", lambda: 16 / BLOCK_SECONDS)
        if way is None:
            restore_of(core)._rates.count(block_bytes(core), BLOCK_SECONDS, 0.0)
        else:
            monkeypatch.setattr(restore_of(core)._rates, "choose", lambda *numbers, way=way: way)
        [request] = run(core, [asked])
        assert_is_right([request], "deepseek_v3")
        assert request.first_token_at is not None
        seconds[name] = request.first_token_at - request.submitted_at
        core.close()
    assert seconds["chosen"] < 0.8 * min(seconds["read"], seconds["compute"]), seconds


def slow(function: Callable[..., Any], seconds: Callable[[Any], float]) -> Callable[..., Any]:
    """One that takes so many seconds longer, by what it returns."""

    def slowed(*arguments: object) -> object:
        result = function(*arguments)
        time.sleep(seconds(result))
        return result

    return slowed


def num_blocks_in(schedule: Schedule | None) -> float:
    return 0 if schedule is None else sum(chunk.length for chunk in schedule.prompts) / 16


def test_what_is_read_too_late_is_computed_and_what_was_read_by_then_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asked] = prompts(1)
    serve(path, [asked])
    core = make_core(path)
    restore, gate = restore_of(core), threading.Event()
    monkeypatch.setattr(restore._rates, "choose", lambda *numbers: BOTH)
    request = greedy(0, asked)
    last = restore._keys.of("full", core.kv_manager.hashes.of(request, 7))
    read = restore._store.read
    monkeypatch.setattr(restore._store, "read", lambda keys: read(keys) if keys == [last] or gate.wait(60) else [])
    core.add(request)
    core.step()
    wait([restore._jobs[0].reading[0][1]])
    while core.has_work:
        core.step()
    assert request.num_cached_tokens == 16, "the last block"
    assert_is_right([request])
    gate.set()
    core.close()


def test_where_computing_is_the_faster_one_a_prompt_waits_for_nothing_and_what_reading_takes_is_still_measured(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asked] = prompts(1)
    serve(path, [asked])
    core = make_core(path)
    restore = restore_of(core)
    monkeypatch.setattr(restore._rates, "choose", lambda *numbers: Way("compute", 128, 0.0))
    request, gate = greedy(0, asked), hold_reads(core, monkeypatch)
    core.add(request)
    core.step()
    gate.set()
    assert request.kv.num_computed_tokens > 0
    assert not restore._jobs[0].unread, "a piece is read, and no more"
    restore.step([], [])
    while core.has_work:
        core.step()
    assert_is_right([request])
    core.close()


def test_a_longer_prompt_that_waits_for_the_blocks_of_another_one_gets_its_own_too(path: Path) -> None:
    [asked] = prompts(1, num_own=200)
    serve(path, [asked])
    core = make_core(path)
    requests = run(core, [asked[:100], asked])
    core.close()
    assert [request.num_cached_tokens for request in requests] == [96, 288]
    assert_is_right(requests)


def test_blocks_before_a_damaged_one_are_read_all_the_same(path: Path) -> None:
    for length in (70, 130, 200):  # segments of their own
        serve(path, [prompts(1, num_own=200)[0][:length]])
    sizes = {each.stat().st_mtime_ns: each for each in path.glob("*.kv")}
    sizes[max(sizes)].write_bytes(b"")
    core = make_core(path)
    assert core._tiering is not None
    [request] = run(core, [prompts(1, num_own=200)[0][:220]])
    core.close()
    assert request.num_cached_tokens == 128
    assert_is_right([request])


class StuckDisk:
    """One on which nothing ends before the gate opens; threads_of tells who touched it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.threads_of: dict[str, set[int]] = {}
        for name in ("read_entries", "read_table", "read_manifest", "write_segment", "write_manifest"):
            self._hold_up(monkeypatch, store_module, name)
        for name in ("lock", "is_locked", "segments", "temporaries", "free_bytes"):
            self._hold_up(monkeypatch, TierFolder, name)
        self._hold_up(monkeypatch, store_module.TierStore, "_stamp")
        self._hold_up(monkeypatch, Path, "unlink")

    def _hold_up(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        function = getattr(owner, name)

        def held_up(*arguments: object, **options: object) -> object:
            if not self.gate.is_set():
                self.threads_of.setdefault(name, set()).add(threading.get_ident())
                self.gate.wait(60)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, held_up)


@pytest.mark.parametrize("writes", [True, False])
def test_no_step_waits_for_a_disk_on_which_nothing_ends(
    path: Path, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(2)
    serve(path, asked[:1])
    other = None if writes else make_core(path)
    core = make_core(path)
    store = restore_of(core)._store
    assert store.is_writer == writes
    monkeypatch.setattr(rates, "_MIN_PATIENCE", 0.05)
    stream = greedy(0, [1, 2, 3], max_tokens=40)
    core.add(stream)
    core.step()  # tells how fast prompts are computed
    core.step()
    disk = StuckDisk(monkeypatch)
    late = greedy(1, asked[0])
    core.add(late)
    while not late.is_finished or not stream.is_finished:
        core.step()
    assert_is_right([late])
    assert late.num_cached_tokens == 0
    expected = {"read_entries"} if writes else {"read_entries", "_stamp"}
    assert expected <= set(disk.threads_of), "the disk was not asked"
    assert all(threading.get_ident() not in threads for threads in disk.threads_of.values())
    disk.gate.set()
    core.close()
    if other is not None:
        other.close()


def test_a_fault_while_blocks_come_back_fails_nobody_who_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [asked] = prompts(1)
    serve(path, [asked])
    core = make_core(path)
    contents = core._tiering._restore._contents  # type: ignore[union-attr]
    monkeypatch.setattr(contents, "write_blocks", lambda *arguments: 1 / 0)
    [request] = run(core, [asked])
    assert_is_right([request])
    core.close()


def test_a_request_that_is_aborted_while_it_is_read_leaves_nothing(path: Path) -> None:
    [asked] = prompts(1)
    serve(path, [asked])
    core = make_core(path)
    core.add(Request(1, asked, SamplingParams(max_tokens=4), 0, lambda delta: None))
    core._tiering._restore.look(core.scheduler.waiting, None)  # type: ignore[union-attr]
    assert core._tiering.has_work  # type: ignore[union-attr]
    core.abort(1)
    while core.has_work:
        core._tiering.step()  # type: ignore[union-attr]  # a step would recover from a fault
    core.check_integrity()
    core.close()


def test_a_prompt_for_which_the_pool_has_no_room_yet_is_planned_when_it_has(path: Path) -> None:
    asked = prompts(2, num_common=0, num_own=200)
    serve(path, asked)
    core = make_core(path, kv_cache_tokens=256)
    restore = restore_of(core)
    core.add(Request(1, [3] * 150, SamplingParams(max_tokens=40, ignore_eos=True), 0, lambda delta: None))
    core.step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore._planner, "plan", lambda request: pytest.fail("planned without room"))
        core.add(Request(2, asked[0], SamplingParams(max_tokens=NUM_NEW, temperature=0), 0, lambda delta: None))
        for _ in range(3):
            core.step()
    assert core.scheduler.waiting[0].on_disk == "unasked"
    [waiting] = core.scheduler.waiting
    while core.has_work:
        core.step()
    assert waiting.num_cached_tokens == 192
    assert_is_right([waiting])
    core.close()
