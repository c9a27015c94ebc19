"""`python -m antipure_lib tournament`: entries in Python files, one page of ranks."""

import argparse
from pathlib import Path
from typing import Any

from .benchmark import check_writable
from .options import BUDGET, COUNT, add_parser, path


def add_command(subparsers: Any) -> None:
    """Add `tournament` to the command line's parser."""
    summary = "rank protections and purifiers of your own next to the shipped ones"
    about = (
        "A file registers protections or purifiers as the registries' examples do. It runs with your rights: "
        "run other people's files in a container (docs/teaching.md)."
    )
    add = add_parser(subparsers, "tournament", summary, about, _names, run=_run)
    many = {"nargs": "+", "metavar": "NAME"}
    add("files", nargs="*", type=path, metavar="FILE", help="Python files; none ranks the shipped ones")
    add("--people", help="default: the people kept apart for tournaments", default=[], **many)
    add("--rivals", help="shipped protections that take part", **many)
    add("--purify", help="shipped purifiers that take part", **many)
    add("--eta", default=16, type=BUDGET, metavar="N", help="budget in steps of 1/255, default: 16")
    add("--seconds", default=300, type=COUNT, metavar="N", help="per file and person, default: 300")
    add("--memory", default=8, type=COUNT, metavar="GIB", help="per file (on Linux), default: 8")
    add("--samples", default=16, type=COUNT, metavar="N", help="generated images per prompt, default: 16")
    add("--learning", type=COUNT, metavar="N", help="LoRA's steps; default: its own")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier's model, default: nano")
    add("--pipe", default="nano", metavar="MODEL", help="customized model, default: nano")
    add(
        "--out", default=Path("build/tournament.html"), type=path, metavar="HTML", help="default: %(default)s"
    )
    cache = "pictures of the stages, default: %(default)s"
    add("--cache", default=Path("build/tournament"), type=path, metavar="DIR", help=cache)


def _names() -> str:
    """The help's last paragraph."""
    from ..benchmark.tournament import PURIFIERS, RIVALS, hidden_people

    defaults = dict(people=hidden_people(), rivals=RIVALS, purify=PURIFIERS)
    return "Defaults: " + " ".join(f"--{option} {' '.join(names)}." for option, names in defaults.items())


def _run(args: argparse.Namespace) -> int:
    from ..benchmark.leaderboard import write_leaderboard
    from ..benchmark.tournament import PURIFIERS, RIVALS, standings, tournament
    from ..notebook.show import table

    check_writable(args.out, "HTML file")
    check_writable(args.cache, "folder")
    limits = dict(eta=args.eta / 255, seconds=args.seconds, memory=args.memory)
    limits |= dict(samples=args.samples, learning=args.learning, ddpm=args.ddpm, pipe=args.pipe)
    rivals, purifiers = args.rivals or RIVALS, args.purify or PURIFIERS
    for state in tournament(args.files, args.cache, args.people, rivals, purifiers, **limits):
        last = state[0][-1]
        print(
            f"{last.person}: {last.protection} against {last.purifier}, pass rate {last.passed:.2f}",
            flush=True,
        )
    matches, problems = state
    write_leaderboard(args.out, matches, problems)
    print(f"\n{table(standings(matches, problems))}\n\nThe page: {args.out}")
    return 0
