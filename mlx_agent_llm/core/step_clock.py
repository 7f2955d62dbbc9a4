"""Where the time of a step goes, phase by phase. Knows nothing of what is timed."""

from __future__ import annotations

import time
from collections import deque
from typing import Literal, NamedTuple, get_args

import numpy as np

Phase = Literal[
    "schedule",  # timeouts, and who runs, with its blocks
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
    """Each mark ends a phase, and the next one begins there: the phases of a step leave nothing out."""

    def __init__(self, num_kept: int = 1000) -> None:
        self._records: deque[StepRecord] = deque(maxlen=num_kept)
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._marked_at = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._marked_at = time.perf_counter()

    def mark(self, phase: Phase) -> None:
        """What happened since the last mark was `phase`; a phase may come in several pieces."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._marked_at
        self._marked_at = now

    def keep(self, num_sampled: int, num_prompt_tokens: int) -> None:
        """Count the step among those that are remembered; marks that follow before the next one still belong to it."""
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
