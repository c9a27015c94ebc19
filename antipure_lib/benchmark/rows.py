"""The benchmark's table on disk: a row per finished cell, appended so that a power cut loses none of them."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..photos.pictures import atomic

KEYS = ("protect", "purify", "customize", "identity", "seed")  # what a cell is

# Budget in [0, 1] units; PGD steps of one draw (with n draws a step, an n-th); hashes of what all rows of a
# table share (models, samples, threads) and of the protection's options; a hash of all that made this row.
SETTINGS = ("eta", "steps", "setup", "cell")

FIGURES = (
    "ism",  # mean cosine of the generated faces to the mean of set C
    "distance",  # mean dlib distance of the generated faces to set C
    "same_person",  # share of the generated images under the calibrated threshold
    "fdfr",  # share of the generated images without a face
    "frechet",  # Fréchet distance of the generated images to sets A, B, C in AlexNet features; it isn't FID
    "brisque",  # mean over the generated images
    "lpips",  # of the protected photos against the clean ones, as flip, ssim and psnr
    "flip",
    "ssim",
    "psnr",
    "psnr_learned",  # of the photos that were learned from (protected, purified) against the clean ones
    "survival",  # ‖Pure(x+δ) − Pure(x)‖ / ‖δ‖, mean over the photos; empty where nothing was changed
)

COLUMNS = (*KEYS, *SETTINGS, *FIGURES)


def append_row(path: str | os.PathLike, row: Mapping[str, object]) -> None:
    """Append one row and wait until it is on the disk; a new file gets the header first.

    row: a value for each of COLUMNS; None and nan are written as an empty field.
    Raises KeyError for a missing column, ValueError for an unknown one.
    """
    unknown = set(row) - set(COLUMNS)
    if unknown:
        raise ValueError(f"row: unknown columns {sorted(unknown)}; the known ones are {', '.join(COLUMNS)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerow([_text(row[name]) for name in COLUMNS])
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: str | os.PathLike) -> list[dict[str, object]]:
    """The finished rows of a table: figures as float (an empty field is nan), the seed and steps as int.

    A last line that was cut off by a crash is left out. Raises FileNotFoundError for a missing file and
    ValueError for one with other columns.
    """
    text = Path(path).read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(whole.splitlines()))
    if not lines:
        return []
    if tuple(lines[0]) != COLUMNS:
        raise ValueError(f"{path}: its columns aren't this benchmark's; give another file, or remove it")
    return [_row(line) for line in lines[1:]]


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a whole table at once, in place of what was there."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_text(row[name]) for name in COLUMNS] for row in rows)


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(line: list[str]) -> dict[str, object]:
    row: dict[str, object] = dict(zip(COLUMNS, line, strict=True))
    for name in ("eta", *FIGURES):
        row[name] = float(row[name] or "nan")
    for name in ("seed", "steps"):
        row[name] = int(row[name])
    return row
