"""How long a Python thread may keep the engine's waiting: the interpreter's switch interval while an engine runs.

MLX gives the interpreter's lock back several times a step, and a thread that computes then keeps it for the whole
switch interval, Python's 5 ms: beside one, a step that takes 1.3 ms alone took 13. With half a millisecond it took 3,
and with less no less. The interval means nothing as long as no two threads want to run.
"""

from __future__ import annotations

import sys
import threading

_SECONDS = 0.0005


class ShortSwitchInterval:
    """A context for any number of threads: the interval is at most _SECONDS until the last one leaves.

    Then it is as before, unless somebody has set another one meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before = _SECONDS

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside == 1:
                self._before = sys.getswitchinterval()
                if self._before > _SECONDS:
                    sys.setswitchinterval(_SECONDS)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0 and self._before > _SECONDS == sys.getswitchinterval():
                sys.setswitchinterval(self._before)


short_switch_interval = ShortSwitchInterval()
