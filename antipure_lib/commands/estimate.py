"""What `protect` and `purify` of the command line tell of time and memory, beforehand and as they go on."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..photos.jobs import Job
    from ..photos.photo import Photo

Work = Callable[["Photo", Path], str]

Estimate = Callable[[Sequence[tuple[int, int]]], None]  # tells what photos of these sizes, H×W, are to need


def before_first(work: Work, jobs: Sequence["Job"], estimate: Estimate) -> Work:
    """`work`, which before its first photo tells of the photos that are still to be made."""
    from ..photos.photo import photo_size

    outputs, told = [job.output for job in jobs], []

    def first(photo: "Photo", path: Path) -> str:
        if not told:
            told.append(path)
            left = jobs[outputs.index(path) :]
            estimate([size for job in left if (size := photo_size(job.photo))])
        return work(photo, path)

    return first


def tell(line: object) -> None:
    """Print a line of an estimate to stderr, above a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"estimate: {line}", file=sys.stderr)


def largest(
    sizes: Sequence[tuple[int, int]], side: int, amount: Callable[[int, int], int]
) -> tuple[int, int, tuple[int, int]]:
    """amount(H, W) of photos of these sizes together; of the one with most; and that one's size, padded."""
    padded = [(max(height, side), max(width, side)) for height, width in sizes]
    amounts = [amount(*size) for size in padded]
    return sum(amounts), *max(zip(amounts, padded, strict=True))


def duration(seconds: float) -> str:
    """Seconds in words, two digits of them: "89 s", "2.5 min", "3 h"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def model_runs(kind: str, numbers: Mapping[str, int | float]) -> int:
    """How many times a purifier sends each tile through the model."""
    from ..purifiers.registry import PURIFIERS

    given = {name: p.default for name, p in signature(PURIFIERS[kind]).parameters.items()} | numbers
    if kind == "freqpure":  # and a look at t_ref in each round
        return given["rounds"] * (given["t"] + 1)
    return given["t"] * given.get("iterations", 1) * given.get("rounds", 1)


@contextmanager
def counted(unet: "torch.nn.Module", update: Callable[[int], object]) -> Iterator[None]:
    """Inside the block update(n) is called for each n images that have gone through the UNet."""
    # A copy of the UNet takes the hook along: memory plans run one on tensors that are none.
    hook = unet.register_forward_hook(lambda run, given, _: update(len(given[0])) if run is unet else None)
    try:
        yield
    finally:
        hook.remove()
