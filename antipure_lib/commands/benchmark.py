"""`python -m antipure_lib benchmark`: a grid of cells into a CSV file, resumable."""

import argparse
import os
from pathlib import Path
from typing import Any

from .options import BUDGET, COUNT, SEED, add_parser, path


def add_command(subparsers: Any) -> None:
    """Add `benchmark` to the command line's parser."""
    summary = "protect, purify, customize and judge a grid of cells, into a CSV file"
    about = (
        "A run that was stopped goes on where its file ends. Several processes share the cells: "
        "accelerate launch --multi_gpu --num_processes 2 -m antipure_lib benchmark"
    )
    add = add_parser(subparsers, "benchmark", summary, about, _names, run=_run)
    many = {"nargs": "+", "metavar": "NAME"}
    add("--protect", default=["none", "random", "antipure"], help="default: none random antipure", **many)
    add(
        "--purify",
        default=["none", "gridpure2x20"],
        help="default: none gridpure2x20; gridpure10@1 has other noise, gridpure10*3 three copies",
        **many,
    )
    add("--customize", default=["dreambooth"], help="default: dreambooth", **many)
    add("--identities", help="default: all held-out people", **many)
    add("--seeds", default=[0], nargs="+", type=SEED, metavar="N", help="default: 0")
    add("--eta", default=16, type=BUDGET, metavar="N", help="budget in steps of 1/255, default: 16")
    add("--steps", default=100, type=COUNT, metavar="N", help="of PGD, default: 100")
    add("--samples", default=16, type=COUNT, metavar="N", help="generated images per prompt, default: 16")
    add("--learning", type=COUNT, metavar="N", help="steps of customization; default: each one's own")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier, default: nano")
    add("--pipe", default="nano", metavar="MODEL", help="customized model of 64 px, default: nano")
    add("--out", default=Path("build/benchmark.csv"), type=path, metavar="CSV", help="default: %(default)s")
    cache = "pictures of the stages, default: %(default)s"
    add("--cache", default=Path("build/benchmark"), type=path, metavar="DIR", help=cache)


def _names() -> str:
    """The help's last paragraph."""
    from ..customization.registry import CUSTOMIZERS
    from ..models.embedded import identities
    from ..protections.registry import PROTECTIONS
    from ..purifiers.registry import PURIFIERS

    groups = dict(protect=PROTECTIONS, purify=PURIFIERS, customize=CUSTOMIZERS, identities=identities())
    return " ".join(f"--{option}: {', '.join(names)}." for option, names in groups.items())


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..benchmark.cells import check_cells
    from ..benchmark.rows import KEYS, plan
    from ..benchmark.run import benchmark, finished_rows, make_world
    from ..models.embedded import identities
    from ..runtime.processes import processes
    from .one_photo import words_of_options

    people = args.identities or identities()
    cells = list(dict.fromkeys(plan(args.protect, args.purify, args.customize, people, args.seeds)))
    check_cells(cells)
    check_writable(args.out, "CSV file")
    check_writable(args.cache, "folder")
    with processes() as group:
        done = finished_rows(args.out)
        settings = dict(steps=args.steps, samples=args.samples, learning=args.learning)
        with words_of_options():
            world = make_world(args.ddpm, args.pipe, args.cache, group.device, eta=args.eta / 255, **settings)
        mine = [cell for cell in cells if cell not in done][group.process_index :: group.num_processes]
        bar = dict(total=len(mine), unit="cell", smoothing=0, disable=not group.is_main_process)
        for row in tqdm(benchmark(cells, args.out, world), **bar):
            figures = f"ISM {row['ism']:.3f}, distance {row['distance']:.3f}, FDFR {row['fdfr']:.2f}"
            tqdm.write(" ".join(str(row[name]) for name in KEYS) + ": " + figures)
        if group.is_main_process:
            print(f"{len(cells)} cells in {args.out}")
    return 0


def check_writable(place: Path, kind: str) -> None:
    """Refuses what would fail only after the models are loaded."""
    there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    fits = there.is_file() if there == place and kind != "folder" else there.is_dir()
    if not (fits and os.access(there, os.W_OK)):
        raise ValueError(f"{place}: {there} can't be written to; name another {kind}")
