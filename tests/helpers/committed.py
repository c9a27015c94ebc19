"""The committed notebooks, and the parameters with which tests run them again."""

from pathlib import Path

import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def quick(name: str) -> dict:
    """Values other than the notebook's own, with as little work as still runs every line: its metadata."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).metadata.quick
