"""Whether the system runs out of memory, by what macOS and Linux report. Knows no MLX."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

_SECONDS = 1.0  # between two questions; one takes 30 us on Linux
_LEVEL = b"kern.memorystatus_vm_pressure_level"  # 1 normal, 2 warning, 4 critical: XNU's NOTE_MEMORYSTATUS_PRESSURE_*
_WARNING = 2
_MEMINFO = Path("/proc/meminfo")
_AVAILABLE_PART = 16  # less than one part in so many of the memory is little: 1 GiB of 16


class MemoryPressure:
    """Asks the system at most once a second; where it reports nothing there is never pressure."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def has_come(self) -> bool:
        """Whether the system was asked just now, and there is pressure."""
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + _SECONDS
        return is_high()


def is_high() -> bool:
    """Whether the kernel warns of too little memory (macOS), or little of it is available (Linux)."""
    if sys.platform == "darwin":
        return _pressure_level() >= _WARNING
    if sys.platform == "linux":
        return _is_little_available(_MEMINFO)
    return False


def _pressure_level() -> int:
    level = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(level))
    sysctlbyname = ctypes.CDLL(None).sysctlbyname
    has_failed = sysctlbyname(_LEVEL, ctypes.byref(level), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if has_failed else level.value


def _is_little_available(meminfo: Path) -> bool:
    try:
        entries = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        total, available = (int(entries[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):  # a container need not have them
        return False
    return available < total // _AVAILABLE_PART
