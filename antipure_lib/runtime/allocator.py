"""Freed memory kept for the next tensors: on a CPU, fresh pages can cost as much time as the computation.

glibc gives blocks above 32 MB back to the system at once, which clears and maps other pages for the next
tensor. A UNet at 256 px makes hundreds of such tensors per call.
"""

import ctypes
import sys
import weakref
from functools import cache

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h (see man mallopt)


def keep_freed_memory(device: torch.device, owner: object) -> None:
    """From now on a CPU's freed memory stays with the process; when `owner` is freed, what is idle goes back.

    Results stay the same, bit for bit. Nothing happens on other devices, or without glibc.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is not None:
        weakref.finalize(owner, libc.malloc_trim, 0).atexit = False


@cache
def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return None
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    return libc
