"""Files of figures: JSON lines that a tool continues, a row per line, and JSON as a whole."""

import json
import os
from argparse import ArgumentParser
from pathlib import Path

from antipure_lib.photos.pictures import atomic
from tools import command_line


def read(path: Path, first: str) -> list[dict]:
    """The rows so far; none if there is no file. first: the name of every row's first value.

    A last line without its end is left out: a crash cut it off. Raises ValueError for a file that isn't such
    a table, and for a broken row.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else "no file"
    start = f'{{"{first}": '
    *lines, tail = text.split("\n")
    begun = tail.startswith(start) or (start.startswith(tail) if lines else not tail)
    if not (begun and all(line.startswith(start) for line in lines)):
        reason = f"its rows don't begin with {start}. Name another file"
        raise ValueError(f"{path} isn't a table of this tool: {reason}")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            remedy = "mend it or remove the line"
            raise ValueError(f"{path}, line {number} is broken ({error}); {remedy}") from error
    return rows


def append(path: Path, row: dict, show: bool = False) -> None:
    """Append one row, in place of a line that a crash cut off, and wait until it is on the disk.

    show: print it as well.
    """
    if show:
        print(json.dumps(row, ensure_ascii=False), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def run_or_table(doc: str, out: Path) -> ArgumentParser:
    """The command line of a tool that measures into a file of lines, `out` by default, and prints it."""
    parser = command_line(doc)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path, nargs="?", default=out)
    return parser


def write_json(path: Path, values: dict) -> None:
    """Write a JSON file whole or not at all."""
    with atomic(path) as part:
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
