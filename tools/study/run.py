"""The study: every cell of the shipped results, in the order of what they tell.

    python -m tools.study.run                 # runs what data/results/study.csv lacks, to the end
    python -m tools.study.run --hours 2       # stops after the cell in which two hours are over; resumable
    python -m tools.study.run --list          # how much of each part is there

To repeat parts of it, with another seed or on another machine, give them a table of their own:

    python -m tools.study.run --parts main rivals --seeds 1 --workers 16 --out data/results/study_gpu.csv

Its parts stand in antipure_lib/study.py. In each, a whole person is finished before the next begins.
"""

import argparse
import time
from pathlib import Path

from antipure_lib.benchmark.cells import Cell
from antipure_lib.benchmark.run import benchmark, finished_rows
from antipure_lib.benchmark.study import PARTS, PEOPLE, SETTINGS, all_cells, coverage
from antipure_lib.models.embedded import identities

OUT = Path(__file__).resolve().parents[2] / "data/results/study.csv"
CACHE = Path("build/study")


def run(out: Path, cache: Path, cells: list[Cell], hours: float, workers: int) -> None:
    """Run what is missing until it is done, or until the time is over."""
    models = dict(ddpm="nano", pipe="nano", cache=cache) | SETTINGS
    began = time.time()
    for row in benchmark(cells, out, models, workers):
        spent = (time.time() - began) / 3600
        print(
            f"{spent:.2f} h",
            *(row[name] for name in Cell._fields),
            f"distance {row['distance']:.3f}",
            flush=True,
        )
        if spent > hours:
            return


def report(out: Path, people: list[str], parts: list[str], seeds: list[int] | None) -> None:
    """How many cells of each part are finished."""
    for line in coverage(list(finished_rows(out).values()), people, parts, seeds):
        print(f"{line['part']:17} {line['finished']:4} of {line['cells']} cells")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--people", nargs="+", default=identities()[:PEOPLE])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the parts' own")
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        report(given.out, given.people, given.parts, given.seeds)
    else:
        cells = all_cells(given.people, given.parts, given.seeds)
        run(given.out, given.cache, cells, given.hours, given.workers)
