"""Work shared by the processes that `accelerate launch` started: GPUs, nodes, or one process alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from .devices import pick_device


class Processes(NamedTuple):
    """This process among all of them."""

    state: Any  # accelerate.PartialState
    device: str  # where this process computes

    @property
    def main(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.state.is_main_process

    def share(self, items: Sequence) -> Sequence:
        """Every n-th item: what this process has to do. All processes must give the same items."""
        return items[self.state.process_index :: self.state.num_processes]

    def wait(self) -> None:
        """Until all processes are here."""
        self.state.wait_for_everyone()

    def total(self, number: int) -> int:
        """Sum of a number over all processes."""
        from accelerate.utils import gather_object

        return sum(gather_object([number]))


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this run; a process that wasn't launched with others is alone and needs no group.

    Whoever finishes early waits: a launcher ends all its processes when one of them ends with an error.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or pick_device().type == "cpu"
    # By default those who wait would give up on a slower process after half an hour or less.
    state = PartialState(cpu=cpu, timeout=timedelta(days=30))
    yield Processes(state, "cpu" if state.device.type == "cpu" else str(state.device))
    state.destroy_process_group()
