"""Processes that begin where this one is, and so at once: nothing is imported again."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Forked:
    """What `subprocess.Popen` is to the library: work() in a process of its own, a session of its own."""

    def __init__(self, work: Callable[[], object], log=None):
        def run():
            os.setsid()
            torch.set_num_threads(1)  # the threads of this process's pool aren't there
            if log:
                os.dup2(log.fileno(), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)  # in place of pytest's own
            work()

        self._process = multiprocessing.get_context("fork").Process(target=run)
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> None:
        self._process.join(seconds)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("work", seconds)
