"""The scheduler, the KV manager and the block pool under random operations, with a pool that records what is written.

The machine stands for the rest of the engine: it "computes" a schedule by writing to each slot which tokens its keys
and values depend on, and checks that every token attends to just the slots that its own sequence filled.
"""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mlx_agent_llm.config import EngineConfig
from mlx_agent_llm.core.kv_manager import KVManager
from mlx_agent_llm.core.scheduler import Chunk, Schedule, Scheduler
from mlx_agent_llm.errors import CapacityError, ContextLengthError
from mlx_agent_llm.request import Request, SamplingParams

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
        self.kv = KVManager(-(-pool_tokens // block_size), block_size, prefix_cache=prefix_cache)
        self.scheduler = Scheduler(self.config, self.kv, MAX_MODEL_LEN)
        self.open: list[Request] = []
        self.in_flight: dict[int, tuple[Request, int]] = {}
        self.slots: dict[int, tuple[int, ...]] = {}  # slot -> the tokens that its content depends on
        self.next_id = 0

    @rule(
        family=st.integers(0, 2),
        length=st.integers(1, 40),
        own=st.lists(st.integers(0, 2), max_size=6),
        max_tokens=st.integers(1, 40),
        priority=st.sampled_from([0, 0, 0, 1]),
    )
    def add(self, family: int, length: int, own: list[int], max_tokens: int, priority: int) -> None:
        self._tally["operations"] += 1
        prompt = [family] * length + own
        params = SamplingParams(max_tokens=max_tokens, priority=priority)
        try:
            self.scheduler.check(len(prompt), max_tokens)
        except CapacityError:
            longest = min(len(prompt) + max_tokens, MAX_MODEL_LEN)
            assert longest > self.kv.pool.num_blocks * self.kv.block_size
            return
        request = Request(self.next_id, prompt, params, 0, lambda delta: None)
        self.next_id += 1
        self.scheduler.waiting.append(request)
        self.open.append(request)

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
        self.kv.pool.forget()
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
        assert len(running) <= self.config.max_num_seqs
        assert all(not request.block_table for request in waiting)
        held = {block_id for request in running for block_id in request.block_table}
        assert len(held) == pool.num_used

    def teardown(self) -> None:
        """No request starves: with nothing new, everything ends in as many steps as its tokens could ever take."""
        if not hasattr(self, "kv"):
            return
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

    def _step(self, rng: random.Random) -> None:
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
            assert chunk.request.num_computed_tokens == end <= chunk.request.num_tokens
            assert chunk.is_sampled == (end == chunk.request.num_tokens)

    def _compute(self, schedule: Schedule) -> None:
        """All writes of a forward come before all reads, as in every layer of the model."""
        written: set[int] = set()
        for chunk in schedule.chunks:
            tokens = self._tokens(chunk.request)
            for position in range(chunk.start, chunk.start + chunk.length):
                slot = self._slot(chunk, position)
                block = self.kv.pool._blocks[chunk.request.block_table[position // self.kv.block_size]]
                assert slot not in written, "two tokens of one forward go to one slot"
                assert block.ref_count == 1 or self._makes_full(chunk, position), "a block in use is written"
                written.add(slot)
                self.slots[slot] = tokens[: position + 1]
        for chunk in schedule.chunks:
            tokens = self._tokens(chunk.request)
            for position in range(chunk.start + chunk.length):
                assert self.slots[self._slot(chunk, position)] == tokens[: position + 1], (
                    "the KV of other tokens is read"
                )

    def _makes_full(self, chunk: Chunk, position: int) -> bool:
        """A block may be shared in the step that fills it, once this chunk makes it full of tokens that are known."""
        end = (position // self.kv.block_size + 1) * self.kv.block_size
        return end <= chunk.start + chunk.length and end <= len(chunk.request.token_ids)

    def _slot(self, chunk: Chunk, position: int) -> int:
        size = self.kv.block_size
        return chunk.request.block_table[position // size] * size + position % size

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
    return request.num_output_tokens > 0 and request.num_tokens - request.num_computed_tokens == 1


def test_ten_thousand_random_operations_break_no_invariant() -> None:
    tally: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: SchedulerMachine(tally),  # type: ignore[arg-type]
        settings=settings(
            max_examples=250,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert tally["operations"] >= 10_000
    assert tally["preemptions"] >= 500
    assert tally["found tokens"] >= 5_000


def make_scheduler(*, num_blocks: int = 64, max_num_seqs: int = 16, budget: int = 32, block_size: int = 4) -> Scheduler:
    config = EngineConfig(max_num_seqs=max_num_seqs, max_tokens_per_step=budget, block_size=block_size)
    return Scheduler(config, KVManager(num_blocks, block_size, prefix_cache=True), 1000)


def queue(scheduler: Scheduler, prompts: list[list[int]], *, priority: int = 0, first_id: int = 0) -> list[Request]:
    params = SamplingParams(priority=priority)
    requests = [Request(first_id + i, prompt, params, 0, lambda delta: None) for i, prompt in enumerate(prompts)]
    scheduler.waiting += requests
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
