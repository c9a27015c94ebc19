"""The benchmark's table on disk: a row per finished cell, always written whole."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ..photos.pictures import atomic
from ..runtime.checks import check_path


class Cell(NamedTuple):
    """What a row is about: the names of what was done, to whom, and the seed of all of it."""

    protect: str
    purify: str
    customize: str
    identity: str
    seed: int


KEYS = Cell._fields

SETTINGS = (
    "eta",  # budget, [0, 1] units
    "steps",  # of PGD with one draw of noise each; a protection with n draws takes an n-th
    "setup",  # hashes of what all rows of a table share and of each method's defaults, see `cells.setup`
    "cell",  # a hash of all that made this row
)

# What a protector wants of a figure (+1 large, −1 small), and its name at an axis.
FIGURES = {
    "ism": (-1, "ISM (cosine)"),  # mean cosine of the generated faces to the mean of set C
    "distance": (1, "dlib distance to the person"),  # mean, of the generated faces to set C
    "same_person": (-1, "pass rate"),  # share of generated images that the judge accepts as the person
    "fdfr": (1, "FDFR"),  # share of the generated images without a face
    "frechet": (1, "Fréchet distance (AlexNet)"),  # of the generated images to sets A, B, C; it isn't FID
    "brisque": (1, "BRISQUE"),  # mean over the generated images
    "lpips": (-1, "LPIPS of the protected photo"),  # to the clean one, as FLIP, SSIM and PSNR
    "flip": (-1, "FLIP of the protected photo"),
    "ssim": (1, "SSIM of the protected photo"),
    "psnr": (1, "PSNR of the protected photo, dB"),
    "psnr_learned": (-1, "PSNR of the learned photo, dB"),  # protected and purified, to the clean one
    "survival": (1, "survival"),  # ‖Pure(x+δ) − Pure(x)‖ / ‖δ‖, mean over the photos; empty if δ = 0
}

COLUMNS = (*KEYS, *SETTINGS, *FIGURES)


def plan(
    protections: Sequence, purifiers: Sequence, customizers: Sequence, identities: Sequence, seeds: Sequence
) -> list[Cell]:
    """All cells of a grid, person by person: a stopped run has finished people in it."""
    grid = product(seeds, identities, customizers, protections, purifiers)
    return [Cell(protect, purify, learn, who, seed) for seed, who, learn, protect, purify in grid]


def read_rows(path: str | os.PathLike) -> list[dict[str, object]]:
    """The finished rows of a table: figures as float (an empty field is nan), the seed and steps as int.

    A last line without its end is left out. Raises ValueError for another kind of file.
    """
    path = check_path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; name a CSV file")
    text = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    if not text:
        return []
    header, *lines, _ = text.split("\n") if "\n" in text else (text, "")
    if header != ",".join(COLUMNS):
        raise ValueError(f"{path} isn't a table of this benchmark: its columns are others. Name another file")
    return [_row(path, number, line) for number, line in enumerate(lines, 2) if line]


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table, a value for each of COLUMNS, in place of what was there. None and nan: empty fields."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(_texts, rows)])


def _texts(row: Mapping[str, object]) -> list[str]:
    def text(value: object) -> str:
        if value is None or value != value:
            return ""
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return [text(row[name]) for name in COLUMNS]


def _row(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        row: dict[str, object] = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))
        figures = {name: float(row[name] or "nan") for name in ("eta", *FIGURES)}
        return row | figures | {name: int(row[name]) for name in ("seed", "steps")}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {number} is broken ({error}); mend it or remove the line") from error
