"""Command line: `python -m antipure_lib COMMAND …`. Every command is a module with an `add_command`."""

import io
import os
import sys
from collections.abc import Sequence

from .commands import benchmark, doctor, inspect_photo, photos, tournament
from .commands.options import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. An error is one line on stderr and status 1.

    argv: the words after the program's name; those of this process by default.
    """
    about = "Protective perturbations against diffusion purification."
    parser = Parser(prog="python -m antipure_lib", description=about)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (photos, inspect_photo, benchmark, tournament, doctor):
        command.add_command(subparsers)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a file's name
    try:
        try:
            args = parser.parse_args(argv)
            return args.run(args)
        finally:
            sys.stdout.flush()  # here, not when Python ends: a pipe's reader may be gone, as in `… | head -1`
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as other programs
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
