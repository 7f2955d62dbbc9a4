"""How hot the system says it is: a number measured on a Mac that slows itself down says little. Knows no MLX."""

from __future__ import annotations

import ctypes
import sys

# Of the notification that macOS posts at each change, from the SDK's OSThermalNotification.h.
_NAME = b"com.apple.system.thermalpressurelevel"
_LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")


def thermal_state() -> str | None:
    """What macOS says of its thermal pressure; None where the system does not tell."""
    if sys.platform != "darwin":
        return None
    library = ctypes.CDLL(None)
    token, level = ctypes.c_int(), ctypes.c_uint64()
    if library.notify_register_check(_NAME, ctypes.byref(token)) != 0:
        return None
    is_read = library.notify_get_state(token, ctypes.byref(level)) == 0
    library.notify_cancel(token)
    return _LEVELS[level.value] if is_read and level.value < len(_LEVELS) else None
