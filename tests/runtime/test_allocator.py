"""Freed memory stays with the process, and goes back to the system when a run's owner is freed."""

import gc
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from antipure_lib import antipure_steps, gridpure_steps
from antipure_lib.runtime import allocator
from antipure_lib.runtime.allocator import keep_freed_memory

needs_glibc = pytest.mark.skipif(allocator._glibc() is None, reason="the C library isn't glibc")
CPU, LARGE = torch.device("cpu"), 64 * 2**20  # bytes; more than glibc's own limit of 32 MB
FAULTS = f"""
import resource, torch
from antipure_lib.runtime.allocator import keep_freed_memory

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
owner = torch.nn.Identity()
keep_freed_memory(torch.device("cpu"), owner)
print(new_pages({LARGE}))
"""


OWNED = f"""
import psutil, torch
from antipure_lib.runtime.allocator import keep_freed_memory

def held():
    return psutil.Process().memory_info().rss

before, owner = held(), torch.nn.Identity()
keep_freed_memory(torch.device("cpu"), owner)
many = [torch.ones({LARGE} // 4) for _ in range(8)]
behind = torch.ones(1000)  # so that the heap's end isn't free
del many
print((held() - before) / {LARGE})  # in tensors
del owner
print((held() - before) / {LARGE})
"""


@needs_glibc
def test_a_large_tensor_takes_the_pages_of_the_one_before():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    without, within = map(float, run.stdout.split())
    assert without > 2  # the results of the convolution, of ReLU, of the sum
    assert within < 0.1


@needs_glibc
def test_memory_goes_back_with_the_owner():
    """In a process of its own: in this one, other tests' memory decides which pages are free."""
    run = subprocess.run([sys.executable, "-c", OWNED], capture_output=True, text=True, check=True)
    kept, left = map(float, run.stdout.split())
    assert kept > 7 and left < 2


@pytest.mark.parametrize("loop", [antipure_steps, gridpure_steps])
def test_a_run_owns_memory_until_it_ends_or_is_dropped(tiny_ddpm, pictures, monkeypatch, loop):
    trims = []
    monkeypatch.setattr(allocator, "_glibc", lambda: SimpleNamespace(malloc_trim=trims.append))
    states = loop(tiny_ddpm, pictures(1))
    next(states)
    assert trims == []
    del states
    gc.collect()
    assert trims == [0]


def test_elsewhere_and_with_another_c_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.weakref, "finalize", lambda *_: pytest.fail("memory is kept"))
    keep_freed_memory(torch.device("meta"), torch.nn.Identity())
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    keep_freed_memory(CPU, torch.nn.Identity())
    monkeypatch.undo()
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())  # musl's has no mallopt
    assert allocator._glibc.__wrapped__() is None
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.delattr(allocator.ctypes, "CDLL")
    assert allocator._glibc.__wrapped__() is None
