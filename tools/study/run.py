"""The study: every cell of the shipped results, the most important parts first.

    python -m tools.study.run                 # runs what data/results/study.csv lacks, to the end
    python -m tools.study.run --hours 2       # stops after the cell in which two hours are over; resumable
    python -m tools.study.run --list          # how much of each part is there

Several processes share the cells; each has its part of the cores, here one of two:

    OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 -m tools.study.run

All rows need one number of threads: it decides the last bits, and training enlarges them.
Without --multi_gpu accelerate starts one process alone if there is no GPU. To repeat parts of the study, with
another seed or on another machine, give them a table of their own:

    python -m tools.study.run --parts main rivals --seeds 1 --out data/results/study_gpu.csv

The list of parts is in antipure_lib/benchmark/study.py. Each part finishes one whole person after the other.
"""

import time
from contextlib import closing
from pathlib import Path

from antipure_lib.benchmark.rows import Cell
from antipure_lib.benchmark.run import benchmark, finished_rows, make_world
from antipure_lib.benchmark.study import PARTS, PEOPLE, SETTINGS, all_cells, coverage
from antipure_lib.models.embedded import identities
from antipure_lib.runtime.processes import processes
from tools import command_line

OUT = Path(__file__).resolve().parents[2] / "data/results/study.csv"
CACHE = Path("build/study")


def run(out: Path, cache: Path, cells: list[Cell], hours: float) -> None:
    """Run what is missing until it is done, or until the time is over."""
    with processes() as group:
        finished_rows(out)  # another kind of file is refused before the models are loaded
        world = make_world("nano", "nano", cache, group.device, **SETTINGS)
        began = time.time()
        with closing(benchmark(cells, out, world)) as rows:
            for row in rows:
                spent = (time.time() - began) / 3600
                named = (row[name] for name in Cell._fields)
                print(f"{spent:.2f} h", *named, f"distance {row['distance']:.3f}", flush=True)
                if spent > hours:
                    break


def report(out: Path, people: list[str], parts: list[str], seeds: list[int] | None) -> None:
    """How many cells of each part are finished."""
    for line in coverage(list(finished_rows(out).values()), people, parts, seeds):
        print(f"{line['part']:17} {line['finished']:4} of {line['cells']} cells")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--people", nargs="+", default=identities()[:PEOPLE])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the parts' own")
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        report(given.out, given.people, given.parts, given.seeds)
    else:
        cells = all_cells(given.people, given.parts, given.seeds)
        run(given.out, given.cache, cells, given.hours)
