"""`python -m antipure_lib protect` and `purify`: photos of one's own, at their own size, into a folder.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .estimate import before_first
from .protect import methods, protection
from .purify import purification

PRECISIONS = ("float32", "bfloat16", "float16")


def add_command(subparsers: Any) -> None:
    """Add `protect` and `purify` to the command line's parser."""
    about = (
        "Photos keep their size. What is finished isn't done again; a run that was killed goes on. A photo "
        "whose tiles don't fit into free memory is refused: with a purifier's model count on about 1.2 GB "
        "for each megapixel."
    )
    summary = "protect photos against customization, at their own size"
    parser = subparsers.add_parser("protect", help=summary, description=f"{summary.capitalize()}. {about}")
    _add_common(parser)
    add = parser.add_argument
    add("--method", default="antipure", metavar="NAME", help="protection, see below; default: %(default)s")
    add("--eta", default=8, type=float, metavar="N", help="budget in steps of 1/255, default: %(default)s")
    add("--steps", type=int, metavar="N", help="of PGD, default: 100, with --fast 10")
    add(
        "--fast",
        action="store_true",
        help="long steps with momentum, for antipure: nearly as much of it survives, in a tenth of the time",
    )
    add(
        "--pipe", default="nano", metavar="MODEL", help="latent model of methods that need one, default: nano"
    )
    add("--jpeg", action="store_true", help="write JPEG, and tell how much of the protection it destroys")
    parser.set_defaults(run=_run, prepare=protection, name="protect")
    _end_with(parser, _methods)

    summary = "purify photos as somebody would who wants to learn from them"
    parser = subparsers.add_parser("purify", help=summary, description=f"{summary.capitalize()}. {about}")
    _add_common(parser)
    add = parser.add_argument
    add("--purifier", default="gridpure20", metavar="NAME", help="such as jpeg75, diffpure100, gridpure2x20")
    parser.set_defaults(run=_run, prepare=purification, name="purify", jpeg=False)
    _end_with(parser, _purifiers)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="picture files, one or many")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the results, made if need be")
    add("--seed", default=0, type=int, metavar="N", help="default: %(default)s")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier's model, default: nano")
    add("--download", action="store_true", help="fetch a model that isn't on this machine; default: never")
    add("--precision", choices=PRECISIONS, help="of the purifier's model, default: the device's fastest")
    add(
        "--keep-metadata",
        action="store_true",
        help="keep the camera's EXIF entries, with date and place; default: no metadata in the results",
    )


def _end_with(parser: argparse.ArgumentParser, names: Callable[[], str]) -> None:
    """The help ends with names that only the library knows, and it is heavy."""
    plain = parser.format_help

    def format_help() -> str:
        parser.epilog = names()
        return plain()

    parser.format_help = format_help


def _methods() -> str:
    any_size, own_size = methods()
    return (
        f"Methods for photos of any size: {', '.join(any_size)}. Only for photos of exactly the size of "
        f"--pipe's model: {', '.join(own_size)}."
    )


def _purifiers() -> str:
    from ..purifiers.registry import NUMBERS, PURIFIERS

    named = [f"{name} ({' x '.join(NUMBERS[name])})" if name in NUMBERS else name for name in PURIFIERS]
    return f"Purifiers, and the numbers that may follow the name: {', '.join(named)}."


def _run(args: argparse.Namespace) -> int:
    from accelerate.utils import gather_object
    from tqdm import tqdm

    from ..photos.jobs import plan_jobs, run_jobs
    from ..runtime.processes import processes

    try:
        with processes() as group:
            _check(args)
            jobs = plan_jobs(args.photos, args.out, args.name, ".jpg" if args.jpeg else ".png")
            group.wait_for_everyone()  # all have planned before anyone begins
            mine = jobs[group.process_index :: group.num_processes]
            silent = None if group.is_local_main_process else True  # None: progress on a terminal only
            settings, work, estimate = args.prepare(args, group.device, silent) if mine else ({}, None, None)
            if group.is_main_process and estimate:
                work = before_first(work, mine, estimate)
            counts = {"made": 0, "kept": 0, "failed": 0}
            outcomes = run_jobs(mine, settings, work)
            bar = tqdm(outcomes, total=len(mine), unit="photo", smoothing=0, disable=silent)
            for outcome in bar:
                failed = outcome.status == "failed"
                line = ("error: " if failed else "") + outcome.message.replace("\n", " ")
                tqdm.write(line, file=sys.stderr if failed else sys.stdout)
                counts[outcome.status] += 1
                bar.initial = counts["kept"]  # they take no time, so they tell none of what is left
            everyone = gather_object([counts])  # all wait for each other
            counts = {status: sum(own[status] for own in everyone) for status in counts}
            if group.is_main_process:
                print(f"{args.out}:", ", ".join(f"{n} {status}" for status, n in counts.items()))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if counts["failed"] else 0


def _check(args: argparse.Namespace) -> None:
    from ..photos.pictures import LOSSLESS, LOSSY

    if args.out.suffix.lower() in LOSSLESS:
        raise ValueError(f"--out {args.out} reads like a file; --out takes a folder")
    if args.out.suffix.lower() in LOSSY:
        raise ValueError(
            f"--out {args.out}: JPEG discards the fine detail that a perturbation is made of. --out takes a "
            "folder and photos become .png; protect's --jpeg writes JPEG in spite of it"
        )
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must be 0 … 2⁶³−1, got {args.seed}")
