"""What the C library does with the buffers that MLX frees on a CPU. Knows no MLX."""

from __future__ import annotations

import ctypes
import platform

# The numbers of mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_FROM_THE_HEAP = 32 * 2**20  # bytes, the most that glibc allows
_KEPT_WHEN_FREE = 256 * 2**20  # bytes at the end of a heap

_IS_GLIBC = platform.libc_ver()[0] == "glibc"


def keep_freed_buffers() -> None:
    """Let glibc keep freed buffers for the next ones of their size, instead of giving them back to the kernel.

    A forward frees and takes the same buffers again and again. Given back, they come as new pages with a fault each:
    up to 550,000 for 2,048 prompt tokens of a 135M model, a seventh of the time. Other C libraries are left alone.
    """
    if not _IS_GLIBC:
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_THE_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_WHEN_FREE)


def give_back_freed_buffers() -> None:
    """Give the kernel what glibc kept; after 2,000 prompt tokens of a 135M model 113 MB, in 40 ms."""
    if _IS_GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
