"""`python -m antipure_lib protect` and `purify`: photos of one's own, at their own size, into a folder."""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .options import BUDGET, COUNT, SEED, add_parser, path

ABOUT = (
    "Photos keep their size, and grey ones stay grey. What is finished isn't done again; a run that was "
    "killed goes on. A result that you edited is kept, and a new one is written next to it. A photo is "
    "refused if its tiles don't fit into free memory: with a purifier's model about 1.2 GB per megapixel."
)


def add_command(subparsers: Any) -> None:
    """Add `protect` and `purify` to the command line's parser."""
    summary = "protect photos against customization, at their own size"
    add = _add_parser(subparsers, "protect", "Protector", summary)
    add("--method", default="antipure", metavar="NAME", help="protection, see below; default: %(default)s")
    add("--eta", default=8, type=BUDGET, metavar="N", help="budget in steps of 1/255, default: %(default)s")
    add("--steps", type=COUNT, metavar="N", help="of PGD, default: 100, with --fast 10")
    fast = "ten long steps, for antipure and workflow: nearly as much survives, in a tenth of the time"
    add("--fast", action="store_true", help=fast)
    diagnose = "print what is wrong with the protection, and what helps; it writes no file and needs no --out"
    add("--diagnose", action="store_true", help=diagnose)
    add("--jpeg", action="store_true", help="write JPEG, and say how much of the protection it destroys")

    summary = "purify photos as somebody would who wants to learn from them"
    add = _add_parser(subparsers, "purify", "Washer", summary)
    add("--purifier", default="gridpure20", metavar="NAME", help="such as gridpure2x20, jpeg75+resize0.5")


def _add_parser(subparsers: Any, name: str, worker: str, summary: str) -> Callable:
    """The command of that name with the options that both have. Returns what adds further ones."""

    def load(attribute: str) -> Any:
        return getattr(import_module(f".{name}", __package__), attribute)

    defaults = dict(run=_run, name=name, load=lambda: load(worker), jpeg=False, diagnose=False)
    add = add_parser(subparsers, name, summary, ABOUT, lambda: load("names")(), **defaults)
    add("photos", nargs="+", type=path, metavar="PHOTO", help="picture files, one or many")
    add("--out", type=path, metavar="DIR", help="folder of the results, made if need be; must be given")
    add("--seed", default=0, type=SEED, metavar="N", help="default: %(default)s")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier's model, default: nano")
    pipe = "latent model of methods and purifiers that need one, default: nano"
    add("--pipe", default="nano", metavar="MODEL", help=pipe)
    add("--download", action="store_true", help="fetch a model that isn't on this machine; default: never")
    precisions = ("float32", "bfloat16", "float16")
    add("--precision", choices=precisions, help="of the purifier's model, default: the device's fastest")
    add("--grey", action="store_true", help="make the photos grey first; grey ones stay grey without it")
    metadata = "keep the camera's EXIF entries, with date and place; default: no metadata in the results"
    add("--keep-metadata", action="store_true", help=metadata)
    return add


def _run(args: argparse.Namespace) -> int:
    if args.diagnose:
        from .diagnose import run

        return run(args)
    if args.out is None:
        raise ValueError(f"--out is missing; see python -m antipure_lib {args.name} --help")
    from accelerate.utils import gather_object
    from tqdm import tqdm

    from ..photos.jobs import plan_jobs, run_jobs
    from ..runtime.processes import processes

    counts = Counter()
    with processes() as group:
        jobs = plan_jobs(args.photos, args.out, args.name, ".jpg" if args.jpeg else ".png")
        group.wait_for_everyone()  # all have planned before anyone begins
        mine, outcomes = jobs[group.process_index :: group.num_processes], ()
        silent = None if group.is_local_main_process else True  # None: progress on a terminal only
        if mine:
            work = args.load()(args, group.device, silent)
            if group.is_main_process:
                _print_plan(work.plan, [job.photo for job in jobs])
            outcomes = run_jobs(mine, work.settings, work)
        bar = tqdm(outcomes, total=len(mine), unit="photo", smoothing=0, disable=silent)
        for outcome in bar:
            failed = outcome.status == "failed"
            line = ("error: " if failed else "") + outcome.message.replace("\n", " ")
            tqdm.write(line, file=sys.stderr if failed else sys.stdout)
            counts[outcome.status] += 1
            bar.initial = counts["kept"]  # they take no time, so the time left doesn't count them
        counts = sum(gather_object([counts]), Counter())  # all wait for each other
        if group.is_main_process:
            told = (f"{counts[status]} {status}" for status in ("made", "kept", "failed"))
            print(f"{args.out}:", ", ".join(told))
    return 1 if counts["failed"] else 0


def _print_plan(plan: Callable[[int, int], object], photos: Sequence[Path]) -> None:
    """What the largest photo takes of memory, to stderr: stdout has results alone."""
    from ..photos.photo import photo_size

    size = max(filter(None, map(photo_size, photos)), key=math.prod, default=None)
    if size and (found := plan(*size)):
        print(f"estimate: largest photo, {found}", file=sys.stderr)
