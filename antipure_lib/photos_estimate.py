"""What `protect` and `purify` of the command line tell of time and memory before their first photo."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .photo_run import Job
    from .photos import Photo

Work = Callable[["Photo", Path], str]
Estimate = Callable[[Sequence[tuple[int, int]]], None]  # tells what photos of these sizes, H×W, are to need


def before_first(work: Work, jobs: Sequence["Job"], estimate: Estimate) -> Work:
    """`work`, which before its first photo tells of the photos that are still to be made."""
    from .photos import photo_size

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


def tiles_of(sizes: Sequence[tuple[int, int]], side: int) -> tuple[int, int, tuple[int, int]]:
    """Tiles of photos of these sizes together; of the one with most, and its size once it is padded."""
    from .tiles import tile_count

    padded = [(max(height, side), max(width, side)) for height, width in sizes]
    tiles = [tile_count(*size, side) for size in padded]
    return sum(tiles), *max(zip(tiles, padded, strict=True))


def duration(seconds: float) -> str:
    """Seconds in words, two digits of them: "89 s", "2.5 min", "3 h"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
