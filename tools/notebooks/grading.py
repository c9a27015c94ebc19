"""The exercises as a course for nbgrader: `python -m tools.notebooks.grading [NOTEBOOK …]`.

It writes build/nbgrader/source/NAME/NAME.ipynb, one assignment per chapter: the cells tagged `setup` and the
exercises with their solutions. `nbgrader generate_assignment NAME` makes the students' copy of it. The
metadata follow version 3 of nbgrader's schema (`nbgrader.nbgraderformat.v3`).
"""

import copy
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from tools.notebooks.exercises import BEGIN, END, TIMEOUT, Exercise, alone, find_exercises
from tools.notebooks.points import Points, points_of
from tools.notebooks.stamp import (
    for_each,
    has_tag,
    read_notebook,
    title_and_promise,
    write_notebook,
    write_text,
)

OUT = Path("build/nbgrader")
OTHER_SEED = 100  # hidden tests are the checks once more, with SEED + OTHER_SEED
INTRODUCTION = """\
# {title} · exercises

Run the cells in their order. Write your code in place of `raise NotImplementedError()`, then run the check.
It says what is wrong. Keep all cells: grading takes the locked ones from the original. It also runs the
checks with numbers that you don't see."""
ANSWER = """\
Your answer to the open exercise: the figure or table, its control, and what you conclude. The rubric is in
the exercise's text.

### BEGIN SOLUTION
### END SOLUTION"""
CONFIG = f"""\
# nbgrader's settings of this course. `make exercises` writes this file once, and keeps your changes.
c = get_config()
c.CourseDirectory.course_id = "antipure"
c.ExecutePreprocessor.timeout = {TIMEOUT}  # seconds for one cell
c.OverwriteCells.add_missing_cells = True  # a check that was deleted comes back and counts
"""


def write_assignment(path: Path, course: Path = OUT) -> int:
    """Write course/source/NAME/NAME.ipynb, and nbgrader's settings where there are none. Returns the points.

    Raises ValueError if an exercise or its points are malformed.
    """
    fresh = assignment(alone(read_notebook(path), path))
    folder = course / "source" / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    write_notebook(folder / path.name, fresh)
    if not (settings := course / "nbgrader_config.py").exists():
        write_text(settings, CONFIG)
    return sum(cell.metadata.nbgrader.get("points", 0) for cell in fresh.cells)


def assignment(notebook: NotebookNode) -> NotebookNode:
    """A chapter's exercises as an nbgrader assignment with solutions and hidden tests, without outputs."""
    title, _ = title_and_promise(notebook, "")
    introduction = new_markdown_cell(INTRODUCTION.format(title=title), id="introduction")
    cells = [_marked(introduction, "introduction", locked=True)]
    exercises = {exercise.cell - 1: exercise for exercise in find_exercises(notebook)}
    for index, cell in enumerate(notebook.cells):
        if index in exercises:
            cells += _exercise_cells(notebook, exercises[index], points_of(notebook, exercises[index]))
        elif has_tag(cell, "setup"):
            cells.append(_marked(cell, f"setup-{index}", locked=True))
    fresh = copy.deepcopy(notebook)
    fresh.cells = cells
    return fresh


def _exercise_cells(notebook: NotebookNode, exercise: Exercise, points: Points) -> list[NotebookNode]:
    """An exercise's text, answer and check; for an open exercise also the cell for a written answer."""
    heading, code, *checks = copy.deepcopy(notebook.cells[exercise.cell - 1 : exercise.cell + 2])
    name = f"exercise-{exercise.number}"
    code.source = re.sub(rf"^(\s*){BEGIN}$", r"\1### BEGIN SOLUTION", code.source, flags=re.MULTILINE)
    code.source = re.sub(rf"^(\s*){END}$", r"\1### END SOLUTION", code.source, flags=re.MULTILINE)
    cells = [_marked(heading, f"{name}-text", locked=True), _marked(code, name, solution=True)]
    if exercise.check:
        checks[0].source = _with_hidden_tests(exercise.check)
        cells.append(_marked(checks[0], f"{name}-check", points=points.check, locked=True))
    if points.rubric:
        written = new_markdown_cell(ANSWER, id=f"{name}-written")
        cells.append(_marked(written, f"{name}-written", points=points.rubric, solution=True))
    return cells


def _with_hidden_tests(check: str) -> str:
    """A check, followed by the same check with another seed, which students don't see, if it has a seed."""
    other = re.sub(r"\bSEED\b", f"(SEED + {OTHER_SEED})", check)
    if other == check:
        return check
    return "\n".join([check, "### BEGIN HIDDEN TESTS", other, "### END HIDDEN TESTS"])


def _marked(
    cell: NotebookNode, grade_id: str, points: int = 0, locked: bool = False, solution: bool = False
) -> NotebookNode:
    """A copy of a cell without outputs and with nbgrader's metadata; it is graded if it has points."""
    cell = copy.deepcopy(cell)
    cell.metadata.nbgrader = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": points > 0,
        "locked": locked,
    }
    cell.metadata.nbgrader |= {"solution": solution, "task": False}
    if points:
        cell.metadata.nbgrader["points"] = points
    if cell.cell_type == "code":
        cell |= {"outputs": [], "execution_count": None}
    return cell


def main(argv: Sequence[str] | None = None) -> int:
    """Write the assignments of the named notebooks, or of all, and return the exit status."""
    parser = ArgumentParser(
        "python -m tools.notebooks.grading", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)

    def write(path: Path) -> list[str]:
        print(f"{path}: {write_assignment(path, args.out)} points")
        return []

    return for_each(args.notebooks, write)


if __name__ == "__main__":
    sys.exit(main())
