"""tools/notebooks/points.py: points of checks and rubrics, and the table of docs/teaching.md."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks.exercises import find_exercises
from tools.notebooks.points import Points, points_of, with_points

ROOT = Path(__file__).parents[2]
CODE = "def f():\n    # solution\n    return 1\n    # end of solution"
RUBRIC = "\n\n**Rubric**\n\n- 2 points: a control.\n- 1 point: a sentence."


def chapter(level="easy", text="", check=True, **metadata):
    """A notebook with one exercise."""
    tags = {"tags": ["check"], **metadata}
    cells = [
        new_markdown_cell(f"### Exercise 1 · A title · {level}\n\nDo it.{text}"),
        new_code_cell(CODE, metadata={"tags": ["exercise"]}),
        *([new_code_cell("assert f() == 1, 'one'", metadata=tags)] if check else []),
    ]
    return new_notebook(cells=cells)


def points(notebook):
    (exercise,) = find_exercises(notebook)
    return points_of(notebook, exercise)


@pytest.mark.parametrize(
    ("notebook", "expected"),
    [
        (chapter("easy"), Points(1, 0)),
        (chapter("medium"), Points(2, 0)),
        (chapter("hard"), Points(3, 0)),
        (chapter("hard", points=7), Points(7, 0)),
        (chapter("open", RUBRIC), Points(1, 3)),
        (chapter("open", RUBRIC, check=False), Points(0, 3)),
    ],
)
def test_points_come_from_the_level_the_metadata_and_the_rubric(notebook, expected):
    assert points(notebook) == expected


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        (chapter(points=0), "has 0 points"),
        (chapter(points="3"), "has '3' points"),
        (chapter(points=True), "has True points"),
        (chapter("open"), "exercise 1 has no rubric at the end"),
        (chapter("open", RUBRIC + "\n\nMore text."), "exercise 1 has no rubric at the end"),
        (chapter("open", "\n\n**Rubric**\n\n"), "exercise 1 has no rubric at the end"),
        (chapter("open", RUBRIC + "\n- a sentence"), "got '- a sentence'"),
        (chapter("open", RUBRIC + "\n- 2 points:"), "got '- 2 points:'"),
        (chapter("easy", RUBRIC), "has a rubric and isn't open"),
    ],
)
def test_malformed_points_are_refused(notebook, message):
    with pytest.raises(ValueError, match=message):
        points(notebook)


def test_the_table_is_written_between_its_marks(tmp_path):
    nbformat.write(chapter("open", RUBRIC), tmp_path / "01_a.ipynb")
    nbformat.write(chapter("hard"), tmp_path / "02_b.ipynb")
    old = "before\n<!-- points, written by `make stamp` -->\nold\n<!-- end -->\nafter\n"
    lines = with_points(old, tmp_path).splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert lines[4:6] == ["| 01 | 1 | 1 | 3 | 4 |", "| 02 | 1 | 3 | 0 | 3 |"]


def test_the_committed_table_is_current():
    text = (ROOT / "docs/teaching.md").read_text()
    assert "| chapter | exercises | points by checks |" in text
    assert with_points(text, ROOT / "notebooks") == text
