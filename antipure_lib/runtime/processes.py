"""The processes that a launcher started (`accelerate launch`, torchrun), or one process alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from .devices import pick_device

if TYPE_CHECKING:
    from accelerate import PartialState


@contextmanager
def processes() -> Iterator["PartialState"]:
    """This process among all: accelerate's `PartialState`. Process i of n takes the work `items[i::n]`.

    All processes must leave the block together: let each call `wait_for_everyone()` at its end. A launcher
    ends all processes when one of them fails.
    """
    # Its functions keep the group that exists when it is first imported (diffusers does) as default argument.
    # That group would outlive its end, and its threads would now and then abort a process that has finished.
    import torch.distributed.nn  # noqa: F401
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or pick_device().type == "cpu"
    # By default a process gives up after half an hour of waiting for a slower one.
    state = PartialState(cpu=cpu, timeout=timedelta(days=30))
    try:
        yield state
    finally:
        # A thread of gloo that still holds the last exchange's tensors needs Python's lock to free them. The
        # group's end keeps the lock and waits for that thread for ever (seen with torch 2.6).
        time.sleep(0.1 if state.num_processes > 1 else 0)
        state.destroy_process_group()
