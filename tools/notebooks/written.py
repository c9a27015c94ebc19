"""What README and docs hold of chapters and measurements: `python -m tools.notebooks.written` writes it.

`make stamp` does so, and `python -m tools.notebooks.check` refuses parts that are stale.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tools.notebooks.measured import with_small_models
from tools.notebooks.points import with_points
from tools.notebooks.results import with_results
from tools.notebooks.stamp import with_chapters, write_text


class Part(NamedTuple):
    """A part of a file between two marks, and what puts a fresh one into the file's text."""

    file: Path
    what: str
    fresh: Callable[[str], str]


PARTS = (
    Part(Path("README.md"), "list of chapters", with_chapters),
    Part(Path("README.md"), "table of results", with_results),
    Part(Path("docs/teaching.md"), "table of points", with_points),
    Part(Path("docs/measured.md"), "part on the small models", with_small_models),
)


def renew(write: bool) -> list[Part]:
    """The stale parts of the files in this folder; `write` makes them fresh."""
    stale = []
    for part in PARTS:
        if part.file.exists() and (new := part.fresh(text := part.file.read_text(encoding="utf-8"))) != text:
            stale.append(part)
            if write:
                write_text(part.file, new)
    return stale


def main() -> int:
    """Write every stale part, print a line for each, and return the exit status."""
    for file, what, _ in renew(write=True):
        print(f"{file}: {what} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
