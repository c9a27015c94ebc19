"""Command line: `python -m antipure_lib COMMAND …`. Every command is a module with an `add_command`."""

import argparse
import io
import sys
from collections.abc import Sequence

from .commands import benchmark, doctor, inspect_photo, photos

COMMANDS = (photos, inspect_photo, benchmark, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    argv: the words after the program's name; those of this process by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m antipure_lib", description="Protective perturbations against diffusion purification."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(subparsers)
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a file's name
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
