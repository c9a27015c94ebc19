"""What all commands share: the parser, and the types that check the values of options."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..runtime.checks import check_path

DASHES = "‐‑‒–—―−"  # what web pages and word processors make of a hyphen

# A word that begins with a dash and is no number and no option: options have two dashes, no dot before "=".
FILE = re.compile(r"-(?!-|h$|[\d.]+$).+|--[^=]*\..*", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser that takes files such as "-a.png", and whose help can end with names from the library."""

    def __init__(self, *words, names: Callable[[], str] | None = None, **options):
        super().__init__(*words, **options)
        self.names = names  # called for the help alone: the library is slow to import
        self.words: list[str] = []

    def format_help(self) -> str:
        self.epilog = self.names and self.names()
        return super().format_help()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        self.words = list(sys.argv[1:] if args is None else args)
        for number, word in enumerate(self.words):
            if word.startswith(tuple(DASHES)) and not os.path.lexists(word):
                self.error(f"{word} begins with a typographic dash; write --{word.lstrip(DASHES)}")
            if FILE.fullmatch(word) and os.path.lexists(word):
                self.words[number] = f"./{word}"
        found, rest = super().parse_known_args(self.words, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str):
        """Raises ValueError: all errors of the command line end in `main`."""
        told, value = re.subn(r"^argument (\S+): (?=must )", r"\1 ", message)
        files = [] if value else [word for word in self.words if FILE.fullmatch(word)]
        hint = f"a file whose name begins with a dash is written ./{files[0]}" if files else None
        raise ValueError(f"{told}; {hint or f'see {self.prog} --help'}")


def add_parser(
    subparsers: Any, command: str, summary: str, about: str, names: Callable | None = None, **defaults: Any
) -> Callable:
    """A command. about: what its help says after the summary; names: see `Parser`. Returns `add_argument`."""
    about = f"{summary[0].upper()}{summary[1:]}. {about}"  # capitalize() would write lpips
    parser = subparsers.add_parser(command, help=summary, description=about, names=names)
    parser.set_defaults(**defaults)
    return parser.add_argument


def number(kind: type, least: float, most: float, what: str) -> Callable[[str], float]:
    """The type of an option that is a number from least to most; `what` says so in its errors."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            plain = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {plain}, {what}, got '{text}'") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return value

    return convert


COUNT = number(int, 1, math.inf, "at least 1")
SEED = number(int, 0, 2**63 - 1, "0 … 2⁶³−1")
BUDGET = number(float, 1, 255, "1 … 255 (steps of 1/255)")


def path(text: str) -> Path:
    """The type of an option that names a file or a folder; "~" is the user's own folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, got an empty word")
    return check_path(text)
