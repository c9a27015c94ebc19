"""Freed memory stays with the process inside the loops, and goes back to the system after them."""

import gc
import subprocess
import sys

import psutil
import pytest
import torch

from antipure_lib import antipure_steps, gridpure_steps
from antipure_lib.runtime import allocator
from antipure_lib.runtime.allocator import kept_memory

needs_glibc = pytest.mark.skipif(allocator._glibc() is None, reason="the C library isn't glibc")
LARGE = 64 * 2**20  # bytes; more than glibc's own limit of 32 MB
FAULTS = f"""
import resource, torch
from antipure_lib.runtime.allocator import kept_memory

def new_pages(size):  # over the size of one of the tensors that a round makes and frees; of ten rounds
    x, kernel = torch.ones(1, 4, 512, size // 2**13), torch.ones(4, 4, 3, 3)
    found = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        y = torch.nn.functional.conv2d(x, kernel, padding=1)
        (y.relu() + x).sum()
        found.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
    return sorted(found)[5] / size

print(new_pages({LARGE}))
with kept_memory("cpu"):
    print(new_pages({LARGE}))
print(new_pages(2 * {LARGE}))
"""


def held() -> int:
    return psutil.Process().memory_info().rss


@needs_glibc
def test_a_large_tensor_takes_the_pages_of_the_one_before():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    without, within, after = map(float, run.stdout.split())
    assert without > 2 and after > 2  # the results of the convolution, of ReLU, of the sum
    assert within < 0.1


@needs_glibc
def test_blocks_overlap_and_the_last_one_gives_memory_back():
    gc.collect()
    before = held()
    first, second = kept_memory("cpu"), kept_memory("cpu")
    first.__enter__()
    second.__enter__()
    many = [torch.ones(LARGE // 4) for _ in range(8)]
    kept = torch.ones(1000)  # lies behind them, so that the heap's end isn't free
    del many
    first.__exit__(None, None, None)
    assert held() > before + 7 * LARGE
    second.__exit__(None, None, None)
    assert held() < before + 2 * LARGE
    assert kept.sum() == 1000 and allocator._users == 0


@needs_glibc
@pytest.mark.parametrize("loop", [antipure_steps, gridpure_steps])
def test_loops_keep_memory_until_they_end_or_are_dropped(tiny_ddpm, pictures, loop):
    x = pictures(1, 16, 16)
    states = loop(tiny_ddpm, x)
    assert allocator._users == 0  # nothing has begun
    next(states)
    assert allocator._users == 1
    states.close()
    assert allocator._users == 0
    broken = loop(tiny_ddpm, x)
    with pytest.raises(ZeroDivisionError):
        for _ in broken:
            _ = 1 / 0
    del broken
    gc.collect()
    assert allocator._users == 0


def test_elsewhere_nothing_happens(monkeypatch):
    with kept_memory("meta"):
        assert allocator._users == 0
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with kept_memory("cpu"):
        assert allocator._users == 0


def test_another_system_or_c_library_is_noticed(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())  # musl's has no mallopt
    assert allocator._glibc.__wrapped__() is None
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.delattr(allocator.ctypes, "CDLL")
    assert allocator._glibc.__wrapped__() is None
