"""Keeps the C library from giving memory back between training steps."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets freed arrays be used again instead of being returned to the system, for the rest of this process.

    A step frees and asks for the same large arrays (gradients, activations, logits); by default glibc unmaps those above
    a threshold, and every step then pays a page fault per 4 KiB: 8% of the time of a 256x4 step with a vocabulary of
    50,304 (benchmarks/train_step.py). The price is that the process stays at its peak memory. Only for a process that trains.

    Returns:
        Whether it took effect: only glibc (Linux) has the setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    return bool(set_option(_M_MMAP_THRESHOLD, _NEVER)) and bool(set_option(_M_TRIM_THRESHOLD, _NEVER))
