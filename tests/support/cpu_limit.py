"""An end for work that nobody knows the length of, by CPU time: how busy the machine is does not matter."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from hypothesis.errors import Flaky


class _OutOfTime(BaseException):  # no error: what catches those must not catch this
    """The work is broken off."""


def ends_within(seconds: float, work: Callable[[], None]) -> bool:
    """Whether the work ends within so many seconds of CPU time; it is broken off there. For the main thread alone."""
    is_over = False

    def break_off(number: int, frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True
        raise _OutOfTime

    before = signal.signal(signal.SIGPROF, break_off)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)  # and once a second, where something kept it to itself
    try:
        work()
    except (_OutOfTime, Flaky):  # hypothesis may take an example that was broken off for one that is flaky
        if not is_over:
            raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return not is_over
