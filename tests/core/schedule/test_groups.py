"""Random operations on schedulers whose model has layers with a window, with states or both."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from mlx_agent_llm import EngineConfig
from mlx_agent_llm.core.batch.states import StateOrder
from mlx_agent_llm.core.kv.kv_manager import KVManager
from mlx_agent_llm.core.kv.memory import PoolSizes
from mlx_agent_llm.core.schedule.schedule import Chunk, Schedule
from mlx_agent_llm.core.schedule.scheduler import Scheduler
from mlx_agent_llm.request import Request
from tests.core.schedule.test_scheduler import MAX_MODEL_LEN, SchedulerMachine

Content = tuple[object, ...]  # the salt and the tokens that something depends on


class GroupsMachine(SchedulerMachine):
    """The scheduler's machine, with a pool of the window's blocks and one of slots."""

    @initialize(
        pool_tokens=st.integers(32, 120),
        block_size=st.sampled_from([1, 2, 4, 16]),
        max_num_seqs=st.integers(1, 5),
        spare_budget=st.integers(0, 40),
        prefix_cache=st.sampled_from([True, True, True, False]),
        window=st.sampled_from([0, 1, 2, 5, 12, 17]),
        num_spare_window_blocks=st.integers(0, 20),
        num_slots=st.sampled_from([0, 2, 3, 6, 12]),
        snapshot_tokens=st.sampled_from([4, 16, 512]),
    )
    def make(  # type: ignore[override]
        self,
        pool_tokens: int,
        block_size: int,
        max_num_seqs: int,
        spare_budget: int,
        prefix_cache: bool,
        window: int,
        num_spare_window_blocks: int,
        num_slots: int,
        snapshot_tokens: int,
    ) -> None:
        self.config = EngineConfig(
            max_num_seqs=max_num_seqs, max_tokens_per_step=max_num_seqs + spare_budget, block_size=block_size
        )
        num_seen = -(-(window - 1) // block_size) + 2
        num_needed = max_num_seqs * num_seen + -(-self.config.max_tokens_per_step // block_size)
        num_window_blocks = num_needed + num_spare_window_blocks if window else 0
        sizes = PoolSizes(-(-pool_tokens // block_size), num_slots, num_window_blocks, window)
        self.kv = KVManager(sizes, block_size, prefix_cache=prefix_cache, snapshot_tokens=snapshot_tokens)
        self.scheduler = Scheduler(self.config, self.kv, MAX_MODEL_LEN)
        self.window = window
        self.open, self.in_flight, self.slots, self.next_id, self.now = [], {}, {}, 0, 0.0
        self.window_slots: dict[int, Content] = {}
        self.states: dict[int, Content] = {}

    def every_block_and_every_request_is_in_one_place(self) -> None:
        super().every_block_and_every_request_is_in_one_place()
        if not hasattr(self, "kv"):
            return
        self.kv.check_integrity(is_idle=not self.open)
        running = self.scheduler.running
        if self.kv.states is not None:
            assert len({request.kv.state_slot for request in running}) == self.kv.states.pool.num_used
        if self.kv.windows is not None:
            held = {block_id for request in running for block_id in self._window_blocks(request)}
            assert len(held) == self.kv.windows.pool.num_used
            most = -(-(self.window - 1) // self.kv.block_size) + 2
            assert all(len(self._window_blocks(request)) <= most for request in running), "more than the window is held"

    def _window_blocks(self, request: Request) -> list[int]:
        return request.kv.window_table[request.kv.num_blocks_behind :]

    def _compute(self, schedule: Schedule) -> None:
        super()._compute(schedule)
        if self.kv.windows is not None:
            self._compute_windows(schedule)
        if self.kv.states is not None:
            self._compute_states(schedule)

    def _compute_windows(self, schedule: Schedule) -> None:
        """All writes come before all reads, and a token reads what is within the window before it."""
        written: set[int] = set()
        for chunk in schedule.chunks:
            for position in range(chunk.start, chunk.start + chunk.length):
                slot = self._window_slot(chunk, position)
                assert slot not in written, "two tokens of one forward go to one slot"
                written.add(slot)
                self.window_slots[slot] = self._content(chunk.request, position + 1)
        for chunk in schedule.chunks:
            for position in range(max(chunk.start + 1 - self.window, 0), chunk.start + chunk.length):
                found = self.window_slots[self._window_slot(chunk, position)]
                assert found == self._content(chunk.request, position + 1), "the KV of other tokens is seen"
                self._tally["seen in windows"] += position < chunk.start

    def _compute_states(self, schedule: Schedule) -> None:
        """What a layer does: rows read what there was before, chunks also what the chunks before them made."""
        order = StateOrder(schedule)
        chunks = [*order.rows, *schedule.prompts]
        batch = order.batch(chunks, 0)
        owners = [(chunk, position) for chunk in chunks for position in range(chunk.start, chunk.start + chunk.length)]
        made: dict[int, Content] = {}
        targets = batch.rows.targets if batch.rows is not None else ()
        for (chunk, position), source, target in zip(
            owners, batch.rows.sources if batch.rows is not None else (), targets, strict=False
        ):
            assert self.states[source] == self._content(chunk.request, position), "a row goes on from another state"
            made[target] = self._content(chunk.request, position + 1)
        made_by_chunks: dict[int, Content] = {}
        for span in batch.chunks:
            (chunk, first), (_, last) = owners[span.begin], owners[span.end - 1]
            assert (span.source is None) == (first == 0)
            if span.source is not None:
                found = made_by_chunks.get(span.source, self.states.get(span.source))
                assert found == self._content(chunk.request, first), "a chunk goes on from another state"
            assert span.target is not None
            made_by_chunks[span.target] = self._content(chunk.request, last + 1)
        assert made.keys().isdisjoint(made_by_chunks), "two states go to one slot"
        self.states |= made | made_by_chunks
        for slot in schedule.changes.empty_slots:
            self.states.pop(slot, None)

    def _window_slot(self, chunk: Chunk, position: int) -> int:
        index, offset = divmod(position, self.kv.block_size)
        return chunk.request.kv.window_table[index] * self.kv.block_size + offset

    def _content(self, request: Request, num_tokens: int) -> Content:
        return (request.params.cache_salt, *self._tokens(request)[:num_tokens])


@pytest.mark.parametrize(
    "times", [1, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=["few", "many"]
)
def test_no_random_operations_break_an_invariant_of_any_group(times: int) -> None:
    tally: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: GroupsMachine(tally),  # type: ignore[arg-type]
        settings=settings(max_examples=100 * times, stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )
    assert tally["preemptions"] >= 30 * times, tally
    assert tally["found tokens"] >= 200 * times, tally
    assert tally["seen in windows"] >= 700 * times, tally
