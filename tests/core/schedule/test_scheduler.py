"""The scheduler, the KV manager and the block pool under random operations, with a pool that records what is written.

The machine stands for the rest of the engine: it "computes" a schedule by writing to each slot which tokens its keys
and values depend on, and checks that every token attends to just the slots that its own sequence filled.
"""

import random
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.errors import CapacityError, ContextLengthError
from mlx_agent_llm.request import Request, SamplingParams
from mlx_agent_llm.request.request import PRIORITY_AGING_SECONDS

MAX_MODEL_LEN = 64


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self, tally: Counter[str]) -> None:
        super().__init__()
        self._tally = tally

    @initialize(
        pool_tokens=st.integers(16, 90),
        block_size=st.sampled_from([1, 2, 4, 16]),
        max_num_seqs=st.integers(1, 6),
        spare_budget=st.integers(0, 40),
        prefix_cache=st.booleans(),
    )
    def make(self, pool_tokens: int, block_size: int, max_num_seqs: int, spare_budget: int, prefix_cache: bool) -> None:
        self.config = EngineConfig(
            max_num_seqs=max_num_seqs, max_tokens_per_step=max_num_seqs + spare_budget, block_size=block_size
        )
        self.kv = KVManager(PoolSizes(-(-pool_tokens // block_size)), block_size, prefix_cache=prefix_cache)
        self.scheduler = Scheduler(self.config, self.kv, MAX_MODEL_LEN)
        self.open: list[Request] = []
        self.in_flight: dict[int, tuple[Request, int]] = {}
        self.slots: dict[int, tuple[object, ...]] = {}  # slot -> the salt and the tokens that its content depends on
        self.next_id = 0
        self.now = 0.0  # seconds; a step takes one

    @rule(
        family=st.integers(0, 2),
        length=st.integers(1, 40),
        own=st.lists(st.integers(0, 2), max_size=6),
        max_tokens=st.integers(1, 40),
        priority=st.sampled_from([0, 0, 0, 1]),
        salt=st.sampled_from([None, None, "salt"]),
    )
    def add(self, family: int, length: int, own: list[int], max_tokens: int, priority: int, salt: str | None) -> None:
        self._tally["operations"] += 1
        prompt = [family] * length + own
        self._add(prompt, SamplingParams(max_tokens=max_tokens, priority=priority, cache_salt=salt))

    @rule(
        index=st.integers(0, 8),
        may_wait=st.booleans(),
        is_sibling=st.booleans(),
        more_tokens=st.integers(1, 20),
        priority=st.sampled_from([0, 2, 9]),
        count=st.integers(1, 3),
        steps=st.integers(0, 3),
    )
    def fork(
        self, index: int, may_wait: bool, is_sibling: bool, more_tokens: int, priority: int, count: int, steps: int
    ) -> None:
        """A fork has its parent's tokens so far, a sibling (n > 1) only the prompt."""
        self._tally["operations"] += 1
        parents = self.open if may_wait else self.scheduler.running
        if not parents:
            return
        parent = parents[index % len(parents)]
        num_tokens = parent.num_prompt_tokens if is_sibling else len(parent.token_ids)
        max_tokens = num_tokens - parent.num_prompt_tokens + more_tokens
        params = SamplingParams(max_tokens=max_tokens, priority=priority, cache_salt=parent.params.cache_salt)
        for _ in range(count):
            self._add(list(parent.prompt_token_ids), params, parent, num_tokens)
        for _ in range(steps):
            self._step(random.Random(index))

    @rule(pick=st.integers(0, 9))
    def reset_the_prefix_cache(self, pick: int) -> None:
        self._tally["operations"] += 1
        if pick == 0:
            self.kv.reset_prefix_cache(self.scheduler.running)

    @rule(seed=st.integers(0, 2**16), steps=st.integers(1, 10))
    def step(self, seed: int, steps: int) -> None:
        rng = random.Random(seed)
        for _ in range(steps):
            self._tally["operations"] += 1
            self._step(rng)

    @rule(index=st.integers(0, 40))
    def cancel(self, index: int) -> None:
        self._tally["operations"] += 1
        if index < len(self.open):
            self._finish(self.open[index])

    @rule(pick=st.integers(0, 9))
    def fail_a_step(self, pick: int) -> None:
        """What the loop does after a fault in a forward: running requests end, and no content is trusted any more."""
        self._tally["operations"] += 1
        if pick:
            return
        self.in_flight = {}
        for request in list(self.scheduler.running):
            self._finish(request)
        for request in self.scheduler.waiting:
            request.num_in_flight = 0
        self.kv.forget()
        self.slots = {}

    @invariant()
    def every_block_and_every_request_is_in_one_place(self) -> None:
        if not hasattr(self, "kv"):
            return
        pool = self.kv.pool
        pool.check_integrity()
        assert pool.num_free + pool.num_cached + pool.num_used == pool.num_blocks
        running, waiting = self.scheduler.running, self.scheduler.waiting
        assert sorted(map(id, running + waiting)) == sorted(map(id, self.open))
        assert all(each == sorted(each, key=lambda request: request.rank) for each in (running, waiting))
        assert len(running) <= self.config.max_num_seqs
        assert all(request.kv.block_table for request in running) and not any(
            request.kv.block_table for request in waiting
        )
        held = {block_id for request in running for block_id in request.kv.block_table}
        assert len(held) == pool.num_used

    def teardown(self) -> None:
        """No request starves: with nothing new, everything ends in as many steps as its tokens could ever take."""
        if not hasattr(self, "kv"):
            return
        assert all(request.parent is None for request in self.scheduler.running), "it has shared its parent's blocks"
        rng, bound = random.Random(0), 50 + sum(3 * (len(r.prompt_token_ids) + r.params.max_tokens) for r in self.open)
        for _ in range(bound):
            if not self.open:
                break
            self._step(rng)
            self.every_block_and_every_request_is_in_one_place()
        assert not self.open, f"{len(self.open)} requests did not end within {bound} steps"
        assert self.kv.pool.num_used == 0
        self._tally["preemptions"] += self.scheduler.num_preemptions
        self._tally["found tokens"] += self.kv.stats.hit_tokens

    def _add(
        self, prompt: list[int], params: SamplingParams, parent: Request | None = None, num_tokens: int | None = None
    ) -> None:
        try:
            self.scheduler.check(len(prompt), params.max_tokens)
        except CapacityError:
            longest = min(len(prompt) + params.max_tokens, MAX_MODEL_LEN)
            assert longest > self.kv.pool.num_blocks * self.kv.block_size
            return
        request = Request(self.next_id, prompt, params, 0, lambda delta: None, submitted_at=self.now, parent=parent)
        request.message_ends = range(9, len(prompt) + 1, 9)
        if parent is not None:
            request.token_ids = parent.token_ids[:num_tokens]
        self.next_id += 1
        self.scheduler.add(request)
        self.open.append(request)

    def _step(self, rng: random.Random) -> None:
        self.now += 1
        decoding = [r for r in self.scheduler.running if is_decoding(r) and not self._is_at_its_length(r)]
        at_length = [(r, r.num_preemptions) for r in self.scheduler.running if self._is_at_its_length(r)]
        schedule = self.scheduler.schedule()
        scheduled = [chunk.request for chunk in schedule.chunks] if schedule is not None else []
        for request, num_preemptions in at_length:
            assert request not in scheduled or request.num_preemptions > num_preemptions, "it computes past its length"
        if schedule is not None:
            self._check(schedule, decoding)
            self._compute(schedule)
        in_flight, self.in_flight = self.in_flight, {}
        for request, token in in_flight.values():
            request.num_in_flight = 0
            if request in self.open:
                request.token_ids.append(token)
                if rng.random() < 0.05 or self._is_at_its_length(request):
                    self._finish(request)
        for chunk in schedule.chunks if schedule is not None else ():
            if chunk.is_sampled:
                self.in_flight[id(chunk.request)] = (chunk.request, rng.randrange(2))
                chunk.request.num_in_flight = int(chunk.request in self.open)

    def _check(self, schedule: Schedule, decoding: list[Request]) -> None:
        assert 0 < sum(chunk.length for chunk in schedule.chunks) <= self.config.max_tokens_per_step
        assert all(chunk.length == 1 for chunk in schedule.rows) and all(chunk.length > 1 for chunk in schedule.prompts)
        requests = [chunk.request for chunk in schedule.chunks]
        assert len(set(map(id, requests))) == len(requests), "a request is scheduled twice"
        assert all(request in self.scheduler.running for request in requests)
        # A stream that runs gets its token every step, whatever prompts arrive: only a full pool holds it up.
        scheduled = {id(request) for request in requests}
        assert all(id(r) in scheduled or r in self.scheduler.waiting for r in decoding), "a decode row was left out"
        for chunk in schedule.chunks:
            end = chunk.start + chunk.length
            assert chunk.request.kv.num_computed_tokens == end <= chunk.request.num_tokens
            assert chunk.is_sampled == (end == chunk.request.num_tokens)

    def _compute(self, schedule: Schedule) -> None:
        """Copies come first, then all writes of a forward before all its reads, as in every layer of the model."""
        self._copy(schedule)
        written: set[int] = set()
        for chunk in schedule.chunks:
            tokens = self._tokens(chunk.request)
            for position in range(chunk.start, chunk.start + chunk.length):
                slot = self._slot(chunk, position)
                block = self.kv.pool._blocks[chunk.request.kv.block_table[position // self.kv.block_size]]
                assert slot not in written, "two tokens of one forward go to one slot"
                assert block.ref_count == 1 or self._makes_full(chunk, position), "a block in use is written"
                written.add(slot)
                self.slots[slot] = (chunk.request.params.cache_salt, *tokens[: position + 1])
        for chunk in schedule.chunks:
            tokens = self._tokens(chunk.request)
            for position in range(chunk.start + chunk.length):
                content = (chunk.request.params.cache_salt, *tokens[: position + 1])
                assert self.slots[self._slot(chunk, position)] == content, "the KV of other tokens is read"

    def _copy(self, schedule: Schedule) -> None:
        targets = {target for _, target in schedule.changes.copies}
        assert len(targets) == len(schedule.changes.copies), "a block is copied to twice"
        assert targets.isdisjoint(source for source, _ in schedule.changes.copies), "a copy is copied"
        for source, target in schedule.changes.copies:
            self._tally["copies"] += 1
            assert self.kv.pool.is_used(source) and self.kv.pool._blocks[target].ref_count == 1
            for offset in range(self.kv.block_size):
                content = self.slots.get(source * self.kv.block_size + offset, ())
                self.slots[target * self.kv.block_size + offset] = content

    def _makes_full(self, chunk: Chunk, position: int) -> bool:
        """A block may be shared in the step that fills it, once this chunk makes it full of tokens that are known."""
        end = (position // self.kv.block_size + 1) * self.kv.block_size
        return end <= chunk.start + chunk.length and end <= len(chunk.request.token_ids)

    def _slot(self, chunk: Chunk, position: int) -> int:
        size = self.kv.block_size
        return chunk.request.kv.block_table[position // size] * size + position % size

    def _tokens(self, request: Request) -> tuple[int, ...]:
        in_flight = self.in_flight.get(id(request))
        return (*request.token_ids, *([in_flight[1]] if in_flight is not None else []))

    def _finish(self, request: Request) -> None:
        self.scheduler.finish(request)
        request.finish_reason = "stop"
        self.open.remove(request)

    def _is_at_its_length(self, request: Request) -> bool:
        return request.num_output_tokens >= request.params.max_tokens or request.num_tokens >= MAX_MODEL_LEN


def is_decoding(request: Request) -> bool:
    return request.num_output_tokens > 0 and request.num_tokens - request.kv.num_computed_tokens == 1


@pytest.mark.parametrize(
    "times", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=["50,000", "a million"]
)
def test_no_random_operations_break_an_invariant(times: int) -> None:
    tally: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: SchedulerMachine(tally),  # type: ignore[arg-type]
        settings=settings(
            max_examples=600 * times,
            stateful_step_count=60,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert tally["operations"] >= 50_000 * times, tally
    assert tally["preemptions"] >= 500 * times, tally
    assert tally["copies"] >= 60 * times, tally
    assert tally["found tokens"] >= 5_000 * times, tally


def make_scheduler(*, num_blocks: int = 64, max_num_seqs: int = 16, budget: int = 32, block_size: int = 4) -> Scheduler:
    config = EngineConfig(max_num_seqs=max_num_seqs, max_tokens_per_step=budget, block_size=block_size)
    return Scheduler(config, KVManager(PoolSizes(num_blocks), block_size, prefix_cache=True), 1000)


def queue(scheduler: Scheduler, prompts: list[list[int]], *, priority: int = 0, first_id: int = 0) -> list[Request]:
    params = SamplingParams(priority=priority)
    requests = [Request(first_id + i, prompt, params, 0, lambda delta: None) for i, prompt in enumerate(prompts)]
    for request in requests:
        scheduler.add(request)
    return requests


def run_step(scheduler: Scheduler) -> Schedule:
    """Schedule, and let every sampled request read a token."""
    schedule = scheduler.schedule()
    assert schedule is not None
    for chunk in schedule.chunks:
        if chunk.is_sampled:
            chunk.request.token_ids.append(7)
    return schedule


@pytest.mark.parametrize("num_decoding", [0, 1, 3])
@pytest.mark.parametrize("budget", [16, 19, 37, 50, 100, 333])
def test_a_prefix_is_computed_once_whatever_the_budget_and_whoever_decodes(budget: int, num_decoding: int) -> None:
    scheduler = make_scheduler(num_blocks=400, max_num_seqs=16, budget=budget)
    queue(scheduler, [[90 + i] for i in range(num_decoding)])
    if num_decoding:
        run_step(scheduler)
    sharing = queue(scheduler, [[1] * 200 + [i] * 7 for i in range(10)], first_id=num_decoding)
    computed = 0
    while any(request.num_output_tokens == 0 for request in sharing):
        computed += sum(c.length for c in run_step(scheduler).chunks if c.start < len(c.request.prompt_token_ids))
    assert computed <= 200 + 10 * 7


def test_a_decode_row_runs_in_every_step_beside_a_long_prompt() -> None:
    scheduler = make_scheduler(budget=16)
    [stream] = queue(scheduler, [[1, 2, 3]])
    run_step(scheduler)
    [prompt] = queue(scheduler, [list(range(100))], first_id=1)
    while prompt.num_output_tokens == 0:
        schedule = run_step(scheduler)
        assert [chunk.request for chunk in schedule.chunks][:1] == [stream]
        assert sum(chunk.length for chunk in schedule.chunks) <= 16


def test_a_full_pool_preempts_the_lowest_priority_and_of_those_the_newest() -> None:
    scheduler = make_scheduler(num_blocks=6)
    low = queue(scheduler, [[1] * 7, [2] * 7], priority=0)
    [high] = queue(scheduler, [[3] * 7], priority=5, first_id=2)
    run_step(scheduler)
    while scheduler.num_preemptions == 0:
        run_step(scheduler)
    assert scheduler.running == [high, low[0]]
    assert scheduler.waiting == [low[1]]


def test_higher_priority_is_admitted_first_and_equal_ones_in_order_of_arrival() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    low = queue(scheduler, [[1], [2]])
    high = queue(scheduler, [[3], [4]], priority=1, first_id=2)
    scheduler.schedule()
    assert scheduler.running == high
    assert scheduler.waiting == low


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(ContextLengthError, match=r"prompt of 1000 tokens .* max_model_len=1000"):
        make_scheduler().check(1000, 1)


def test_a_request_that_could_never_fit_the_pool_is_refused_with_both_sizes() -> None:
    make_scheduler().check(200, 56)
    with pytest.raises(CapacityError, match=r"prompt of 200 tokens \+ max_tokens=57 needs room for 257 .* holds 256"):
        make_scheduler().check(200, 57)


@pytest.mark.parametrize("levels", [1, 3])
def test_a_low_priority_request_finishes_under_an_endless_stream_of_higher_ones(levels: int) -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    low = Request(0, [1, 2], SamplingParams(priority=0), 0, lambda delta: None, submitted_at=0.0)
    scheduler.add(low)
    for second in range(1, 1000):  # each one takes a second, and the next one is there before it ends
        params = SamplingParams(priority=levels)
        scheduler.add(Request(second, [3], params, 0, lambda delta: None, submitted_at=second - 0.5))
        run_step(scheduler)
        if low in scheduler.running:
            break
        scheduler.finish(scheduler.running[0])
    assert second == levels * PRIORITY_AGING_SECONDS + 1


def test_requests_of_one_moment_go_by_priority_and_then_by_their_number() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    for request_id, priority in [(3, 0), (2, 0), (1, -1), (4, 1)]:
        params = SamplingParams(priority=priority)
        scheduler.add(Request(request_id, [1], params, 0, lambda delta: None, submitted_at=5.0))
    scheduler.schedule()
    assert [request.request_id for request in scheduler.running + scheduler.waiting] == [4, 2, 3, 1]


def fork(scheduler: Scheduler, parent: Request, request_id: int, **params: Any) -> Request:
    child = Request(request_id, parent.prompt_token_ids, SamplingParams(**params), 0, lambda delta: None, parent=parent)
    child.token_ids = list(parent.token_ids)
    scheduler.add(child)
    return child


def test_a_fork_takes_one_block_and_computes_one_token() -> None:
    scheduler = make_scheduler(block_size=4)
    [parent] = queue(scheduler, [list(range(10))])
    run_step(scheduler)
    child = fork(scheduler, parent, 1)
    before = scheduler._kv.pool.num_used
    schedule = run_step(scheduler)
    assert [(chunk.request, chunk.length) for chunk in schedule.chunks] == [(parent, 1), (child, 1)]
    assert schedule.changes.copies == [(parent.kv.block_table[2], child.kv.block_table[2])]
    assert child.kv.block_table[:2] == parent.kv.block_table[:2] and scheduler._kv.pool.num_used == before + 1
    assert child.parent is None and child.num_cached_tokens == 10


def test_a_fork_at_the_border_of_a_block_copies_nothing() -> None:
    scheduler = make_scheduler(block_size=4)
    [parent] = queue(scheduler, [list(range(8))])
    run_step(scheduler)  # eight tokens are computed, and the ninth is sampled
    child = fork(scheduler, parent, 1)
    schedule = run_step(scheduler)
    assert schedule.changes.copies == []
    assert child.kv.block_table[:2] == parent.kv.block_table[:2] and child.kv.block_table[2] != parent.kv.block_table[2]


def test_a_sibling_waits_until_the_step_after_its_leaders_prompt_and_others_go_on_meanwhile() -> None:
    scheduler = make_scheduler(budget=16, block_size=4)
    [leader] = queue(scheduler, [list(range(30))])
    sibling = fork(scheduler, leader, 1)
    [other] = queue(scheduler, [[99]], first_id=2)
    assert [chunk.request for chunk in run_step(scheduler).chunks] == [leader]
    assert {chunk.request for chunk in run_step(scheduler).chunks} == {leader, other}
    assert leader.num_output_tokens == 1
    assert [c for c in run_step(scheduler).chunks if c.request is sibling] == [Chunk(sibling, 29, 1, is_sampled=True)]


def test_a_child_that_ranks_before_its_waiting_parent_goes_alone() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    [parent] = queue(scheduler, [list(range(10))])
    child = fork(scheduler, parent, 1, priority=5)
    scheduler.schedule()
    assert scheduler.running == [child] and child.parent is None


def test_a_prompt_with_nothing_left_to_compute_preempts_nobody() -> None:
    """Its last token waits for its grammar, and what comes before was computed by another one meanwhile."""
    scheduler = make_scheduler(budget=16, block_size=4)
    [prompt] = queue(scheduler, [list(range(33))])
    prompt.grammar = Future()
    run_step(scheduler)
    scheduler._kv.allocate(Request(1, list(range(33)), SamplingParams(), 0, lambda delta: None), 100)
    assert scheduler.schedule() is None
    assert scheduler.num_preemptions == 0 and scheduler.running == [prompt]
    assert prompt.kv.num_computed_tokens == prompt.num_ready_tokens == 32


def test_a_waiting_request_that_cannot_be_scheduled_fails_alone_and_holds_nothing() -> None:
    scheduler = make_scheduler()
    first, broken, last = queue(scheduler, [[1] * 9, [1] * 4 + [2**70] * 4 + [1], [2] * 9])
    schedule = scheduler.schedule()
    assert schedule is not None and [chunk.request for chunk in schedule.chunks] == [first, last]
    [failure] = scheduler.take_failures()
    assert failure.request is broken and isinstance(failure.fault, OverflowError)
    assert scheduler.take_failures() == []
    scheduler.finish(broken)
    assert scheduler.waiting == [] and scheduler._kv.pool.num_used == 3 + 3
    scheduler._kv.pool.check_integrity()


@pytest.mark.parametrize("num_requests", [32, 256])
def test_admitting_many_at_once_asks_a_few_times_for_each_what_it_misses(
    monkeypatch: pytest.MonkeyPatch, num_requests: int
) -> None:
    scheduler = make_scheduler(num_blocks=2 * num_requests, max_num_seqs=num_requests, budget=10 * num_requests)
    queue(scheduler, [[7] * 4 + [i] * 4 for i in range(num_requests)])
    calls: list[Request] = []
    num_missing_blocks = KVManager.num_missing_blocks

    def counted(kv: KVManager, request: Request) -> int:
        calls.append(request)
        return num_missing_blocks(kv, request)

    monkeypatch.setattr(KVManager, "num_missing_blocks", counted)
    assert len(run_step(scheduler).chunks) == num_requests
    assert len(calls) <= 2 * num_requests


@pytest.mark.parametrize(("pool_tokens", "longest"), [(32, 32), (96, MAX_MODEL_LEN), (0, MAX_MODEL_LEN)])
def test_a_request_can_have_what_the_context_and_the_pool_hold(pool_tokens: int, longest: int) -> None:
    scheduler = Scheduler(EngineConfig(), KVManager(PoolSizes(pool_tokens // 16), 16, prefix_cache=True), MAX_MODEL_LEN)
    assert scheduler.max_request_tokens == longest
