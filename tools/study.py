"""The study: every cell of the shipped results, in the order of what they tell.

    python tools/study.py                 # runs what data/results/study.csv lacks, to the end
    python tools/study.py --hours 2       # stops after the cell in which two hours are over; resumable
    python tools/study.py --list          # how much of each part is there

Each part is a grid, and a whole person is finished before the next begins. Everything is judged at one budget
and one number of steps, with the defaults of every protection.
"""

import argparse
import time
from pathlib import Path

from antipure_lib.benchmark import Cell, plan
from antipure_lib.benchmark_run import benchmark, finished_rows
from antipure_lib.data import identities
from antipure_lib.protect import PROTECTIONS

OUT = Path(__file__).resolve().parents[1] / "data/results/study.csv"
CACHE = Path("build/study")
SETTINGS = dict(eta=16 / 255, steps=50, samples=16, learning=None)

PAPER = ["none", "random", "antipure", "advdm", "mist", "aspl", "simac"]
ABLATION = ["pixel-ddpm", "pfg", "etg", "antipure-pfg", "antipure-etg", "end-to-end"]
OTHERS = [name for name in PROTECTIONS if name not in PAPER + ABLATION]
CHAIN = ["none", "gridpure2x20"]
PARTS = {
    "main": dict(protections=["none", "random", "antipure"], purifiers=CHAIN),
    "rivals": dict(protections=PAPER[3:], purifiers=CHAIN),
    "ablation": dict(protections=ABLATION, purifiers=CHAIN),
    "iterations": dict(
        protections=["none", "random", "antipure", "aspl"],
        purifiers=["gridpure10", "gridpure20", "gridpure30"],
    ),
    "dreambooth": dict(protections=PAPER, purifiers=CHAIN, customizers=["dreambooth"]),
    "transfer": dict(protections=PAPER, purifiers=["jpeg75", "diffpure100", "waifu2x"]),
    "the rest": dict(
        protections=PAPER + ABLATION + OTHERS,
        purifiers=[*CHAIN, "jpeg75", "diffpure100", "waifu2x"],
        customizers=["lora", "dreambooth"],
        seeds=[0, 1],
    ),
}


def cells_of(part: str, people: list[str]) -> list[Cell]:
    """The cells of one part for these people; LoRA and seed 0 where the part doesn't say."""
    grid = dict(customizers=["lora"], seeds=[0]) | PARTS[part]
    return plan(identities=people, **grid)


def all_cells(people: list[str]) -> list[Cell]:
    """The cells of all parts, each once."""
    return list(dict.fromkeys(cell for part in PARTS for cell in cells_of(part, people)))


def run(out: Path, cache: Path, people: list[str], hours: float, workers: int) -> None:
    """Run what is missing until it is done, or until the time is over."""
    models = dict(ddpm="nano", pipe="nano", cache=cache) | SETTINGS
    began, cells = time.time(), all_cells(people)
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


def report(out: Path, people: list[str]) -> None:
    """How many cells of each part are finished."""
    done = set(finished_rows(out))
    for part in PARTS:
        cells = [tuple(cell) for cell in cells_of(part, people)]
        print(f"{part:12} {len(done.intersection(cells)):4} of {len(cells)} cells")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--people", nargs="+", default=identities()[:8])
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        report(given.out, given.people)
    else:
        run(given.out, given.cache, given.people, given.hours, given.workers)
