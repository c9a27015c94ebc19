"""Two calls compared by turns, A B A B …: other load on the machine meets both alike."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import torch


class Ratio(NamedTuple):
    """Of a / b over neighbours: median, lowest and highest; median seconds of each."""

    median: float
    low: float
    high: float
    seconds_a: float
    seconds_b: float


def by_turns(a: Callable, b: Callable, rounds: int, device: torch.device) -> Ratio:
    """Measure a against b, each `rounds` times. The first call of each isn't counted."""
    pairs = [[timed(call, device) for call in (a, b)] for _ in range(rounds + 1)]
    return summary(pairs[1:])


def summary(pairs: Sequence[Sequence[float]]) -> Ratio:
    """The ratio of pairs of seconds (a, b)."""
    ratios = [a / b for a, b in pairs]
    return Ratio(
        median(ratios), min(ratios), max(ratios), *(median(side) for side in zip(*pairs, strict=True))
    )


def timed(call: Callable, device: torch.device) -> float:
    """Seconds of one call, with what it left to do on the device."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start
