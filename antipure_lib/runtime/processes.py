"""Work shared by the processes that `accelerate launch` started: GPUs, nodes, or one process alone."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from .devices import pick_device


class Processes(NamedTuple):
    """This process among all of them; by default the only one."""

    index: int = 0
    count: int = 1
    local_index: int = 0  # among those of this machine
    device: str | None = None  # where it computes; None: see `pick_device`

    @property
    def main(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.index == 0

    def share(self, items: Sequence) -> Sequence:
        """What this process has to do: every count-th item. All processes must give the same items."""
        return items[self.index :: self.count]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()

    def total(self, number: int) -> int:
        """The sum of all processes' numbers; they wait for each other."""
        if self.count == 1:
            return number
        from accelerate.utils import gather_object

        return sum(gather_object([number]))


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this run. One that wasn't launched with others needs no process group.

    Who finishes early has to wait for the rest before it ends: a launcher ends all its processes when one of
    them ends with an error.
    """
    # Its functions keep the group that exists when it is first imported (diffusers does) as default argument.
    # That group would outlive its end, and its threads would now and then abort a process that has finished.
    import torch.distributed.nn  # noqa: F401
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or pick_device().type == "cpu"
    # By default those who wait would give up on a slower process after half an hour or less.
    state = PartialState(cpu=cpu, timeout=timedelta(days=30))
    device = "cpu" if state.device.type == "cpu" else str(state.device)
    try:
        yield Processes(state.process_index, state.num_processes, state.local_process_index, device)
    finally:
        # A thread of gloo that still holds the last exchange's tensors wants Python's lock to free them; the
        # group's end would keep the lock and wait for that thread for ever (seen with torch 2.6).
        time.sleep(0.1 if state.num_processes > 1 else 0)
        state.destroy_process_group()
