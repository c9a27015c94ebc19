"""`python -m antipure_lib benchmark`: a grid of cells into a CSV file, resumable, with an estimate first."""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .benchmark import CUSTOMIZERS, Cell, World, plan, run_cell
from .checkpoints import load_ddpm, load_stable_diffusion
from .data import identities
from .estimate import estimate
from .judge import Judge
from .protect import PROTECTIONS
from .purifiers import parse_purifier
from .results import KEYS, append_row, read_rows, write_rows

OUT = Path("build/benchmark.csv")
CACHE = Path("build/benchmark")


def benchmark(
    cells: Sequence[Cell], out: str | os.PathLike, models: dict[str, Any], workers: int = 1
) -> Iterator[dict[str, object]]:
    """Run the cells that `out` doesn't hold yet, append each row as it is finished, and yield it.

    models: names and settings as `make_world` takes them. workers: processes, which share the cores.
    At the end the table is put into the plan's order, so that it doesn't depend on who finished first. Raises
    ValueError where `out` holds rows with another budget or number of steps.
    """
    done = finished_rows(out)
    for row in done.values():
        _check_settings(out, row, models)
    if done:
        write_rows(out, done.values())  # without a line that a crash cut off
    missing = [cell for cell in cells if tuple(cell) not in done]
    for row in _finished(missing, models, workers):
        append_row(out, row)
        done[tuple(row[name] for name in KEYS)] = row
        yield row
    planned = [tuple(cell) for cell in cells]
    others = [key for key in done if key not in set(planned)]
    write_rows(out, [done[key] for key in planned + others])


def finished_rows(out: str | os.PathLike) -> dict[tuple, dict[str, object]]:
    """The rows that a table holds, by cell; none where there is no file yet."""
    rows = read_rows(out) if Path(out).exists() else []
    return {tuple(row[name] for name in KEYS): row for row in rows}


def make_world(ddpm: str, pipe: str, cache: str | os.PathLike, **settings: Any) -> World:
    """Load the models by name; settings are World's."""
    return World(load_ddpm(ddpm), load_stable_diffusion(pipe), Judge(), Path(cache), **settings)


def _finished(cells, models, workers) -> Iterator[dict[str, object]]:
    if workers == 1:
        world = make_world(**models) if cells else None
        for cell in cells:
            yield run_cell(cell, world)
        return
    # spawn: a forked child of a process with running torch threads hangs
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start, (models, workers)) as pool:
        yield from pool.imap_unordered(_run, cells)


def _start(models, workers) -> None:
    global _world
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _world = make_world(**models)


def _run(cell) -> dict[str, object]:
    return run_cell(Cell(*cell), _world)


def _check_settings(out, row, models) -> None:
    for name in ("eta", "steps"):
        if abs(row[name] - models[name]) > 1e-6:
            there, here = f"{row[name]:g}", f"{models[name]:g}"
            raise ValueError(
                f"{out} holds rows with {name}={there}, not {here}; name another file with --out"
            )


def add_command(subparsers: Any) -> None:
    """Add `benchmark` to the command line's parser."""
    summary = "protect, purify, customize and judge a grid of cells, into a CSV file"
    parser = subparsers.add_parser("benchmark", help=summary, description=summary.capitalize() + ".")
    add = parser.add_argument
    many = {"nargs": "+", "metavar": "NAME"}
    add("--protect", default=["none", "random", "antipure"], help=f"of {', '.join(PROTECTIONS)}", **many)
    add("--purify", default=["none", "gridpure2x20"], help="such as none jpeg75 diffpure100", **many)
    add("--customize", default=["dreambooth"], choices=list(CUSTOMIZERS), nargs="+")
    add("--identities", default=identities(), help="default: all held-out people", **many)
    add("--seeds", default=[0], nargs="+", type=int, metavar="N")
    add("--eta", default=16, type=float, metavar="N", help="budget in steps of 1/255, default: 16")
    add("--steps", default=100, type=int, metavar="N", help="of PGD, default: 100")
    add("--samples", default=16, type=int, metavar="N", help="generated images a prompt, default: 16")
    add("--learning", type=int, metavar="N", help="steps of customization; default: each one's own")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier, default: nano")
    add("--pipe", default="nano", metavar="MODEL", help="customized model, default: nano")
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

    settings = dict(eta=args.eta / 255, steps=args.steps, samples=args.samples, learning=args.learning)
    models = dict(ddpm=args.ddpm, pipe=args.pipe, cache=args.cache) | settings
    try:
        cells = plan(args.protect, args.purify, args.customize, args.identities, args.seeds)
        _check_names(args)
        done = finished_rows(args.out)
        missing = [cell for cell in cells if tuple(cell) not in done]
        if args.estimate != "no" and missing:
            print(_report(missing, models, args.workers), flush=True)
        if args.estimate == "only":
            return 0
        states = benchmark(cells, args.out, models, args.workers)
        for row in tqdm(states, total=len(missing), unit="cell", smoothing=0):
            figures = f"ISM {row['ism']:.3f}, distance {row['distance']:.3f}, FDFR {row['fdfr']:.2f}"
            tqdm.write(" ".join(str(row[name]) for name in KEYS) + ": " + figures)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(cells)} cells in {args.out}")
    return 0


def _report(cells, models, workers) -> str:
    found = estimate(cells, make_world(**models))
    lines = [f"{stage:28} {seconds:8.1f} s" for stage, seconds in found.stages.items()]
    total = f"{len(cells)} cells: about {found.seconds / 3600 / workers:.1f} hours with {workers} worker(s), "
    return "\n".join([*lines, total + f"{workers} × {found.memory / 1e9:.1f} GB of memory"])


def _check_names(args) -> None:
    """Refuse an unknown name before the first cell runs, not hours later."""
    known = {"protect": PROTECTIONS, "identities": identities()}
    for option, names in known.items():
        for name in getattr(args, option):
            if name not in names:
                raise ValueError(f"--{option}: unknown '{name}'; the known ones are {', '.join(names)}")
    for name in args.purify:
        parse_purifier(name)
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
