"""Points of the exercises, and their table in docs/teaching.md.

A check has the points of its cell's metadata (`"points": 5`), else those of its exercise's level. An open
exercise is also graded by hand. Its heading cell ends with a rubric, whose lines add up:

    **Rubric**

    - 2 points: a control at equal budget and equal steps.
    - 1 point: a sentence that reads the figure.
"""

import re
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

from tools.notebooks.exercises import Exercise, find_exercises
from tools.notebooks.stamp import between_marks, read_notebook

LEVEL_POINTS = {"easy": 1, "medium": 2, "hard": 3, "open": 1}  # of a check
RUBRIC = re.compile(r"\n\*\*Rubric\*\*\n\n((?:- .+(?:\n|$))+)\Z")
RUBRIC_LINE = re.compile(r"- (\d+) points?: \S.*")


class Points(NamedTuple):
    """Points of one exercise: for passing its check, and by its rubric."""

    check: int
    rubric: int


def points_of(notebook: NotebookNode, exercise: Exercise) -> Points:
    """An exercise's points. Raises ValueError for a bad number and for a missing or malformed rubric."""
    by_rubric = _rubric(notebook.cells[exercise.cell - 1].source, exercise)
    if exercise.check is None:
        return Points(0, by_rubric)
    metadata = notebook.cells[exercise.cell + 1].metadata
    points = metadata.get("points", LEVEL_POINTS[exercise.level])
    if not (type(points) is int and points > 0):
        problem = f"has {points!r} points in its check's metadata"
        raise ValueError(f"exercise {exercise.number} {problem}; give a whole number above 0")
    return Points(points, by_rubric)


def _rubric(heading: str, exercise: Exercise) -> int:
    """The sum of a rubric's points; 0 for an exercise that isn't open."""
    found = RUBRIC.search(heading)
    if not found and ("**Rubric**" in heading or exercise.level == "open"):
        remedy = "end its text with **Rubric** and a list of lines such as '- 2 points: a control'"
        raise ValueError(f"exercise {exercise.number} has no rubric at the end of its text; {remedy}")
    if not found:
        return 0
    if exercise.level != "open":
        raise ValueError(f"exercise {exercise.number} has a rubric and isn't open; its check grades it")
    lines = found[1].strip().split("\n")
    for line in lines:
        if not RUBRIC_LINE.fullmatch(line):
            raise ValueError(
                f"exercise {exercise.number}'s rubric needs '- 2 points: what for', got '{line}'"
            )
    return sum(int(RUBRIC_LINE.fullmatch(line)[1]) for line in lines)


def with_points(teaching: str, folder: Path = Path("notebooks")) -> str:
    """The text of docs/teaching.md with a fresh table of the points of all chapters in a folder."""
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        notebook = read_notebook(path)
        points = [points_of(notebook, exercise) for exercise in find_exercises(notebook)]
        checks, rubric = sum(p.check for p in points), sum(p.rubric for p in points)
        rows.append(f"| {path.stem[:2]} | {len(points)} | {checks} | {rubric} | {checks + rubric} |\n")
    head = "| chapter | exercises | points by checks | points by rubric | together |\n|---|---|---|---|---|\n"
    return between_marks(teaching, "points", "".join([head, *rows]))
