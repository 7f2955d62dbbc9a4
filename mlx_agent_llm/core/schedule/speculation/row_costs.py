"""What a step's rows cost, learned from the steps so far: of streams alone, and with drafts beside them.

A step with drafts takes longer by a part for each row, and by one that is always the same, since it is scheduled only
when the tokens before it are read. So is the step after it. As in pacing, single steps are slow for reasons of their
own: all is medians.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, combinations
from statistics import median
from typing import NamedTuple

_NUM_REMEMBERED = 16
_NUM_TRIED = 5  # steps of each kind before anything is said
_NUM_TRIED_AGAIN = 2  # of them, with drafts
_NUM_STEPS = 8  # for which a cost stands
_NUM_UNTRIED = 256  # steps without drafts after which what those with some took is tried again: devices change...
_MAX_UNTRIED = 1024  # ...and twice as many after each such trial that led to nothing, up to this
_COMPILED = 3  # times as long as a step without drafts: MLX has compiled for that number of rows
_MIN_SHARE = 0.005  # of a step that a row takes at least: a number of rows is bounded, and a slope of 0 is noise


class Cost(NamedTuple):
    """Seconds of a step without drafts, of one with drafts but for their rows, and of each of these rows."""

    alone: float
    fixed: float
    row: float


class StepTime(NamedTuple):
    """How long a step without prompts took; is_overlapped: it was scheduled before the tokens before it were read."""

    num_streams: int
    num_draft_tokens: int
    seconds: float
    is_overlapped: bool


@dataclass
class _Steps:
    alone: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_REMEMBERED))
    drafted: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_NUM_REMEMBERED))
    late: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_NUM_TRIED))  # after those with drafts
    num_untried: int = 0  # steps since the last one with a draft
    next_trial: int = _NUM_UNTRIED  # after so many of them
    num_seen: int = 0
    cost: Cost | None = None  # of these steps, when it was worked out

    def forget(self) -> None:
        """Know too little of drafts to say anything, so that some are tried again, and the next time later."""
        self.late.clear()
        while len(self.drafted) > _NUM_TRIED - _NUM_TRIED_AGAIN:
            self.drafted.popleft()
        self.cost = None
        self.next_trial = min(2 * self.next_trial, _MAX_UNTRIED)


class RowCosts:
    """The costs of steps with about so many streams."""

    def __init__(self) -> None:
        self._steps = defaultdict[int, _Steps](_Steps)
        self._nums_rows = set[int]()  # of steps so far

    def observe(self, step: StepTime) -> None:
        """Learn from a step, but not from the first of so many rows where MLX seems to have compiled for it."""
        steps = self._steps[step.num_streams.bit_length()]
        if self._is_compiled_for(step, steps.alone):
            return
        steps.num_seen += 1
        if steps.num_seen % _NUM_STEPS == 0:
            steps.cost = None
        if step.num_draft_tokens:
            if len(steps.drafted) >= _NUM_TRIED:  # it was no trial
                steps.next_trial = _NUM_UNTRIED
            steps.drafted.append((step.num_draft_tokens, step.seconds))
            steps.num_untried = 0
        elif not step.is_overlapped:
            steps.late.append((0, step.seconds))
        else:
            steps.alone.append(step.seconds)
            steps.num_untried += 1
            if steps.num_untried == steps.next_trial:
                steps.forget()

    def is_tried(self, num_streams: int) -> bool:
        """Whether enough steps without drafts were seen to judge one with some."""
        return len(self._steps[num_streams.bit_length()].alone) >= _NUM_TRIED

    def of(self, num_streams: int) -> Cost | None:
        """The cost, None before enough steps of both kinds were seen."""
        steps = self._steps[num_streams.bit_length()]
        if len(steps.alone) < _NUM_TRIED or len(steps.drafted) < _NUM_TRIED:
            return None
        if steps.cost is None:
            steps.cost = _cost(median(steps.alone), steps.drafted, steps.late)
        return steps.cost

    def _is_compiled_for(self, step: StepTime, alone: Sequence[float]) -> bool:
        num_rows = step.num_streams + step.num_draft_tokens
        is_first = num_rows not in self._nums_rows
        self._nums_rows.add(num_rows)
        return is_first and (not alone or step.seconds > _COMPILED * median(alone))


def _cost(alone: float, drafted: Sequence[tuple[int, float]], late: Sequence[tuple[int, float]]) -> Cost:
    """By the median slope between all pairs of steps, weighted by the rows that they are apart (Theil and Sen).

    One slope more, of a single row, is that of steps to which drafts add nothing but what their rows take.
    """
    slopes = [(median((seconds - alone) / count for count, seconds in drafted), 1)]
    for (count, seconds), (other, other_seconds) in combinations([*drafted, *late], 2):
        if count != other:
            slopes.append(((other_seconds - seconds) / (other - count), abs(other - count)))
    slopes.sort()
    weights = list(accumulate(weight for _, weight in slopes))
    row = max(slopes[bisect_left(weights, weights[-1] / 2)][0], _MIN_SHARE * alone)
    fixed = median(seconds - row * count for count, seconds in (*drafted, *late))
    return Cost(alone, max(fixed, alone), row)
