"""Freed memory kept for the next tensors: on a CPU, fresh pages can cost as much time as what is computed.

glibc's allocator gives blocks above 32 MB straight back to the system when they are freed, as it does with a
heap's end. The next tensor of that size gets other pages, each of which the system has to clear and to map. A
UNet at 256 px makes hundreds of such tensors a call; those of the embedded models are smaller.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Parameters of mallopt, from glibc's malloc.h (see man mallopt).
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4

LARGEST = 32 * 2**20  # bytes; where glibc's moving MMAP_THRESHOLD ends; its TRIM_THRESHOLD at twice that

WORTH_RETURNING = 2**28  # bytes; less is taken again before long

_lock, _users = threading.RLock(), 0  # a dropped generator may end inside


@contextmanager
def kept_memory(device: torch.device | str) -> Iterator[None]:
    """Inside the block a CPU's freed memory stays with the process; the last such block gives it back.

    For loops that make the same large tensors again and again; what they compute is the same, bit for bit. Up
    to a quarter more memory is held than without. Nothing happens on other devices, or where the C library
    isn't glibc 2.33 or newer.
    """
    libc = _glibc() if torch.device(device).type == "cpu" else None
    if libc is None:
        yield
        return
    _count(libc, 1)
    try:
        yield
    finally:
        _count(libc, -1)


def _count(libc: ctypes.CDLL, change: int) -> None:
    """One block more or less: blocks overlap where generators are watched side by side."""
    global _users
    with _lock:
        before, _users = _users, _users + change
        if before == 0:
            libc.mallopt(MMAP_MAX, 0)
            libc.mallopt(TRIM_THRESHOLD, -1)
        elif _users == 0:
            # Set once, thresholds no longer move: they go where such tensors would have moved them.
            libc.mallopt(MMAP_MAX, 65536)
            libc.mallopt(MMAP_THRESHOLD, LARGEST)
            libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
            if libc.mallinfo2().free > WORTH_RETURNING:
                libc.malloc_trim(0)


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "chunks",
            "small",
            "maps",
            "mapped",
            "most",
            "small_free",
            "used",
            "free",
            "top",
        )
    ]


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not all(hasattr(libc, name) for name in ("mallopt", "malloc_trim", "mallinfo2")):
        return None
    libc.mallinfo2.restype = _Mallinfo2
    return libc
