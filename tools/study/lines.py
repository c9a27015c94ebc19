"""Files of JSON lines that a tool continues: a row per line, appended so that a power cut loses none."""

import json
import os
from pathlib import Path


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


def append(path: Path, row: dict) -> None:
    """Append one row, in place of a line that a crash cut off, and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
