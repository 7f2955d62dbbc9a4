"""MLX's default device: the whole process's, and where every operation goes that names no stream.

mx.set_default_device and mx.stream change it for all threads at once, and the modules of mlx and mlx-lm name no stream.
So what has to build on another device than the default one changes it for as long as it builds, and whoever needs
another one meanwhile waits. Operations run where they were built, so nobody waits for what is computed.
"""

from __future__ import annotations

import threading

import mlx.core as mx


class DefaultDevice:
    """Who builds on which device; any number of threads at a time on the same one."""

    def __init__(self) -> None:
        self._entry = threading.Lock()  # in order of arrival, so that nobody waits for another device for ever
        self._changed = threading.Condition()
        self._num_inside = 0
        self._device: mx.Device | None = None  # theirs
        self._before: mx.Device | None = None  # what is set again after them

    @property
    def own(self) -> mx.Device:
        """The default device as it is while nobody builds."""
        with self._changed:
            return self._before if self._before is not None else mx.default_device()

    def set_to(self, device: mx.Device) -> _SetTo:
        """A context in which operations that name no stream go to `device`; not to be entered twice by one thread.

        Afterwards the default is as it was, unless somebody has set another one meanwhile.
        """
        return _SetTo(self, device)

    def enter(self, device: mx.Device) -> None:
        """See set_to."""
        with self._entry, self._changed:
            while self._num_inside > 0 and self._device != device:
                self._changed.wait()
            before = mx.default_device()
            if before != device:
                mx.set_default_device(device)
                self._before = before
            self._num_inside += 1
            self._device = device

    def leave(self) -> None:
        """See set_to."""
        with self._changed:
            self._num_inside -= 1
            if self._num_inside > 0:
                return
            if self._before is not None:
                if mx.default_device() == self._device:
                    mx.set_default_device(self._before)
                self._before = None
            self._changed.notify()  # the one that has the entry


class _SetTo:
    """A context of DefaultDevice; a class, because each step enters several of them."""

    def __init__(self, default: DefaultDevice, device: mx.Device) -> None:
        self._default, self._device = default, device

    def __enter__(self) -> None:
        self._default.enter(self._device)

    def __exit__(self, *exception: object) -> None:
        self._default.leave()


default_device = DefaultDevice()
