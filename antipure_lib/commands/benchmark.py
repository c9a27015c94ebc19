"""`python -m antipure_lib benchmark`: a grid of cells into a CSV file, resumable. It starts without torch."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any


def add_command(subparsers: Any) -> None:
    """Add `benchmark` to the command line's parser."""
    summary = "protect, purify, customize and judge a grid of cells, into a CSV file"
    about = f"{summary[0].upper()}{summary[1:]}. Processes of accelerate launch --multi_gpu share the cells."
    parser = subparsers.add_parser("benchmark", help=summary, description=about, add_help=False)
    add = parser.add_argument
    many = {"nargs": "+", "metavar": "NAME"}
    add("-h", "--help", nargs=0, action=_Help, help="show this help, with all names, and exit")
    grid = {"protect": ["none", "random", "antipure"], "purify": ["none", "gridpure2x20"]}
    for name, default in (grid | {"customize": ["dreambooth"]}).items():
        add(f"--{name}", default=default, help=f"default: {' '.join(default)}", **many)
    add("--identities", help="default: all held-out people", **many)
    add("--seeds", default=[0], nargs="+", type=int, metavar="N", help="default: 0")
    add("--eta", default=16, type=float, metavar="N", help="budget in steps of 1/255, default: 16")
    add("--steps", default=100, type=int, metavar="N", help="of PGD, default: 100")
    add("--samples", default=16, type=int, metavar="N", help="generated images per prompt, default: 16")
    add("--learning", type=int, metavar="N", help="steps of customization; default: each one's own")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier, default: nano")
    add("--pipe", default="nano", metavar="MODEL", help="customized model of 64 px, default: nano")
    for name, kind, path in (("out", "CSV", "build/benchmark.csv"), ("cache", "DIR", "build/benchmark")):
        add(f"--{name}", default=path, type=Path, metavar=kind, help="default: %(default)s")
    parser.set_defaults(run=_command)


class _Help(argparse.Action):
    """The help ends with names that only the library knows, and it is heavy."""

    def __call__(self, parser, *_):
        from ..customization.registry import CUSTOMIZERS
        from ..models.embedded import identities
        from ..protections.registry import PROTECTIONS
        from ..purifiers.registry import PURIFIERS

        groups = dict(protect=PROTECTIONS, purify=PURIFIERS, customize=CUSTOMIZERS, identities=identities())
        parser.epilog = " ".join(f"--{option}: {', '.join(names)}." for option, names in groups.items())
        parser.print_help()
        parser.exit()


def _command(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..benchmark.cells import check_cells
    from ..benchmark.rows import KEYS, plan
    from ..benchmark.run import benchmark, finished_rows, make_world
    from ..models.embedded import identities
    from ..runtime.processes import processes

    try:
        with processes() as group:
            people = args.identities or identities()
            cells = list(dict.fromkeys(plan(args.protect, args.purify, args.customize, people, args.seeds)))
            check_cells(cells)
            _check(args)
            done = finished_rows(args.out)
            settings = dict(steps=args.steps, samples=args.samples, learning=args.learning)
            world = make_world(args.ddpm, args.pipe, args.cache, group.device, eta=args.eta / 255, **settings)
            mine = [cell for cell in cells if cell not in done][group.process_index :: group.num_processes]
            bar = dict(total=len(mine), unit="cell", smoothing=0, disable=not group.is_main_process)
            for row in tqdm(benchmark(cells, args.out, world), **bar):
                figures = f"ISM {row['ism']:.3f}, distance {row['distance']:.3f}, FDFR {row['fdfr']:.2f}"
                tqdm.write(" ".join(str(row[name]) for name in KEYS) + ": " + figures)
            if group.is_main_process:
                print(f"{len(cells)} cells in {args.out}")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail hours later, or only after the models are loaded."""
    if not 1 <= args.eta <= 255:
        raise ValueError(f"--eta must be 1 … 255 steps of 1/255, got {args.eta:g}")
    for path, kind in ((args.out, "CSV file"), (args.cache, "folder")):
        there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        fits = there.is_file() if there == path and kind == "CSV file" else there.is_dir()
        if not (fits and os.access(there, os.W_OK)):
            raise ValueError(f"{path}: {there} can't be written to; name another {kind}")
