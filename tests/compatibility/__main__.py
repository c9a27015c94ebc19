"""Try every situation and write the table: `python -m tests.compatibility [NAME …] [--fast] [--out FILE]`."""

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .registry import KINDS, SITUATIONS, Result, Situation, timed_attempt
from .table import OUT, write


def main() -> int:
    """Run what is asked for; exit status 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names or kinds; default: all")
    parser.add_argument("--fast", action="store_true", help="leave out the slow ones")
    parser.add_argument("--out", type=Path, help=f"the table, default: {OUT}; not written for a part")
    args = parser.parse_args()
    chosen = [found for found in SITUATIONS.values() if _wanted(found, args)]
    chosen.sort(key=lambda found: list(KINDS).index(found.kind))
    results: dict[str, Result] = {}
    spawn = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), spawn) as pool:
        tried = pool.map(timed_attempt, [found.name for found in chosen])
        for number, (found, (result, took)) in enumerate(zip(chosen, tried, strict=True), 1):
            results[found.name] = result
            count = f"[{number}/{len(chosen)}] {took:5.1f} s"
            print(f"{count} {result.outcome:8}{found.name}: {result.message}", flush=True)
    counts = Counter(result.outcome for result in results.values())
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    out = args.out or (OUT if len(chosen) == len(SITUATIONS) else None)
    if out:
        write(out, {SITUATIONS[name]: result for name, result in results.items()})
        print(f"table: {out}")
    return 1 if counts["fault"] else 0


def _wanted(found: Situation, args: argparse.Namespace) -> bool:
    named = not args.names or any(part in found.name or part == found.kind for part in args.names)
    return named and (found.fast or not args.fast)


if __name__ == "__main__":
    sys.exit(main())
