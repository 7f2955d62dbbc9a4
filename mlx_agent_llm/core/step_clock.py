"""Where the time of a step goes, phase by phase. Knows nothing of what is timed."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, get_args

import numpy as np

Phase = Literal[
    "schedule",  # timeouts, blocks to the disk and back, and who runs, with its blocks
    "batch",  # the schedule as host arrays, and their copies in MLX
    "forward",  # MLX: the forward's graph, built or looked up
    "wait",  # for the device, until the last step's tokens can be read
    "dispatch",  # the graph to the device, until its queue has taken it
    "advance",  # tokens to deltas: matchers accept, text, stops, blocks of what ended
    "masks",  # the grammars' bitmasks
    "parameters",  # the sampled rows' parameters as host arrays
    "sample",  # MLX: the sampling's graph and its dispatch, the copies of its arrays too
    "account",  # the counts of the step
    "deliver",  # deltas to the callers' handles
]
PHASES: tuple[Phase, ...] = get_args(Phase)
HOST_PHASES: tuple[Phase, ...] = ("schedule", "batch", "advance", "masks", "parameters", "account", "deliver")


class StepRecord(NamedTuple):
    """One step: how many rows it sampled and prompt tokens it computed, and the seconds spent in each phase."""

    num_sampled: int
    num_prompt_tokens: int
    seconds: dict[Phase, float]  # of all PHASES, in their order


class StepClock:
    """Times what happens within `with clock.phase(...)`, without the phases inside of that one.

    What happens between two phases is counted with the second: the phases of a step leave nothing out.
    """

    def __init__(self, num_kept: int) -> None:
        self._records: deque[StepRecord] = deque(maxlen=num_kept)
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._open: list[Phase] = []  # the innermost one last
        self._counted_until = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._counted_until = time.perf_counter()

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """The time of one phase, which may come in several pieces."""
        return _Timed(self, phase)

    def keep(self, num_sampled: int, num_prompt_tokens: int) -> None:
        """Count the step among those that are remembered; phases that end before the next one still belong to it."""
        self._records.append(StepRecord(num_sampled, num_prompt_tokens, self._seconds))

    @property
    def records(self) -> list[StepRecord]:
        """The remembered steps, oldest first; any thread may ask."""
        return list(self._records)

    def mean_seconds(self) -> dict[Phase, float]:
        """Mean seconds a step of each phase, over the remembered steps; zeros before the first."""
        records = self.records
        if not records:
            return dict.fromkeys(PHASES, 0.0)
        means = np.mean([list(record.seconds.values()) for record in records], axis=0)
        return dict(zip(PHASES, means.tolist(), strict=True))

    def enter(self, phase: Phase) -> None:
        """A phase begins; one that it lies in goes on after it."""
        if self._open:
            self._count(self._open[-1])
        self._open.append(phase)

    def leave(self) -> None:
        """The innermost phase ends."""
        self._count(self._open.pop())

    def _count(self, phase: Phase) -> None:
        now = time.perf_counter()
        self._seconds[phase] += now - self._counted_until
        self._counted_until = now


class _Timed(AbstractContextManager[None]):
    """Written out, because a generator's context manager takes twice as long."""

    def __init__(self, clock: StepClock, phase: Phase) -> None:
        self._clock = clock
        self._phase: Phase = phase

    def __enter__(self) -> None:
        self._clock.enter(self._phase)

    def __exit__(self, *exception: object) -> None:
        self._clock.leave()
