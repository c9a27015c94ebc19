"""`python -m antipure_lib benchmark`: a grid of cells into a CSV file, resumable, with an estimate first.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

OUT = Path("build/benchmark.csv")

CACHE = Path("build/benchmark")


def add_command(subparsers: Any) -> None:
    """Add `benchmark` to the command line's parser."""
    summary = "protect, purify, customize and judge a grid of cells, into a CSV file"
    about = f"{summary[0].upper()}{summary[1:]}."  # capitalize() would write csv
    parser = subparsers.add_parser("benchmark", help=summary, description=about)
    add = parser.add_argument
    many = {"nargs": "+", "metavar": "NAME"}
    add("--protect", default=["none", "random", "antipure"], help="default: none random antipure", **many)
    add("--purify", default=["none", "gridpure2x20"], help="such as none jpeg75 diffpure100", **many)
    add("--customize", default=["dreambooth"], help="dreambooth, lora; default: dreambooth", **many)
    add("--identities", help="default: all held-out people", **many)
    add("--seeds", default=[0], nargs="+", type=int, metavar="N")
    add("--eta", default=16, type=float, metavar="N", help="budget in steps of 1/255, default: 16")
    add("--steps", default=100, type=int, metavar="N", help="of PGD, default: 100")
    add("--samples", default=16, type=int, metavar="N", help="generated images a prompt, default: 16")
    add("--learning", type=int, metavar="N", help="steps of customization; default: each one's own")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier, default: nano")
    add("--pipe", default="nano", metavar="MODEL", help="customized model of 64 px, default: nano")
    add("--out", default=OUT, metavar="CSV", help="default: %(default)s; a run goes on where its file ends")
    add("--cache", default=CACHE, metavar="DIR", help="pictures of the stages, default: %(default)s")
    add("--workers", default=1, type=int, metavar="N", help="processes, default: 1")
    add(
        "--estimate",
        choices=("first", "only", "no"),
        default="first",
        help="probe what it will cost before it starts; only: and stop; default: %(default)s",
    )
    parser.set_defaults(run=_command)


def _command(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..benchmark.cells import plan
    from ..benchmark.rows import KEYS
    from ..benchmark.run import benchmark, finished_rows
    from ..models.embedded import identities
    from ..runtime.processes import processes

    args.identities = args.identities or identities()
    settings = dict(eta=args.eta / 255, steps=args.steps, samples=args.samples, learning=args.learning)
    models = dict(ddpm=args.ddpm, pipe=args.pipe, cache=args.cache) | settings
    try:
        with processes() as group:
            _check_names(args, group.count)
            cells = plan(args.protect, args.purify, args.customize, args.identities, args.seeds)
            _check_out(Path(args.out))
            done = finished_rows(args.out)
            missing = [cell for cell in dict.fromkeys(cells) if tuple(cell) not in done]
            models["device"] = group.device
            if args.estimate != "no" and missing and group.main:
                print(_report(missing, models, args.workers * group.count), flush=True)
            if args.estimate == "only":
                return 0
            states = benchmark(cells, args.out, models, args.workers, group)
            mine = group.share(missing)
            for row in tqdm(states, total=len(mine), unit="cell", smoothing=0, disable=not group.main):
                figures = f"ISM {row['ism']:.3f}, distance {row['distance']:.3f}, FDFR {row['fdfr']:.2f}"
                tqdm.write(" ".join(str(row[name]) for name in KEYS) + ": " + figures)
            if group.main:
                print(f"{len(cells)} cells in {args.out}")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(cells, models, workers) -> str:
    from ..benchmark.estimate import estimate
    from ..benchmark.run import make_world
    from .estimate import duration

    found = estimate(cells, make_world(**models))
    lines = [f"{stage:28} {seconds:8.1f} s" for stage, seconds in found.stages.items()]
    total = f"{len(cells)} cells: about {duration(found.seconds / workers)} with {workers} worker(s), "
    return "\n".join([*lines, total + f"{workers} × {found.memory / 1e9:.1f} GB of memory"])


def _check_out(out: Path) -> None:
    """Refuse a table that can't be written before hours are spent on its rows."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if there.is_dir() == (there == out) or not os.access(there, os.W_OK):
        raise ValueError(f"--out {out}: {there} can't be written to; name another CSV file")


def _check_names(args, processes) -> None:
    """Refuse an unknown name before the first cell runs, not hours later."""
    from ..customization.registry import CUSTOMIZERS
    from ..models.embedded import identities
    from ..protections.registry import PROTECTIONS
    from ..purifiers.registry import parse_purifier

    known = {"protect": PROTECTIONS, "customize": CUSTOMIZERS, "identities": identities()}
    for option, names in known.items():
        for name in getattr(args, option):
            if name not in names:
                raise ValueError(f"--{option}: unknown '{name}'; the known ones are {', '.join(names)}")
    for name in args.purify:
        parse_purifier(name)
    for seed in args.seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"--seeds must be 0 … 2⁶³−1, got {seed}")
    for option in ("workers", "steps", "samples"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    if args.learning is not None and args.learning < 1:
        raise ValueError(f"--learning must be at least 1, got {args.learning}")
    if not 1 <= args.eta <= 255:
        raise ValueError(f"--eta must be 1 … 255 steps of 1/255, got {args.eta:g}")
    if args.workers > 1 and processes > 1:
        raise ValueError("--workers is for a run without `accelerate launch`, which has its own processes")
