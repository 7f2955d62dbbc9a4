"""How much memory a device has, and how much of it the engine takes when nobody says."""

from __future__ import annotations

import os

import mlx.core as mx

GIB = 2**30
_SYSTEM_PART = 5  # of a memory that the GPU shares with everything else one part in so many is the system's...
_SYSTEM_BYTES = 4 * GIB  # ...and at least this much, or a quarter of a small one


def device_bytes(device: mx.Device) -> int:
    """All that the machine has for a CPU; for a GPU what it recommends to use at most, or else all of its own."""
    if device.type == mx.cpu:
        return physical_bytes()
    info = mx.device_info(device)
    return int(info.get("max_recommended_working_set_size") or info["total_memory"])


def usable_bytes(device: mx.Device) -> int:
    """What of device_bytes the engine takes by default: where the GPU shares the system's memory, this has its part.

    A Mac whose working set was raised for large models would otherwise have nothing left for the system.
    """
    if not is_unified(device):
        return device_bytes(device)
    return min(device_bytes(device), physical_bytes() - system_bytes())


def system_bytes() -> int:
    """What is left to the system of a memory that the GPU shares with it."""
    return max(physical_bytes() // _SYSTEM_PART, min(_SYSTEM_BYTES, physical_bytes() // 4))


def is_unified(device: mx.Device) -> bool:
    """Whether it is a GPU on the system's memory: Metal alone recommends a working set."""
    return device.type == mx.gpu and bool(mx.device_info(device).get("max_recommended_working_set_size"))


def physical_bytes() -> int:
    """The memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
