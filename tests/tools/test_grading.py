"""tools/notebooks/grading.py: the chapters' tags become assignments that nbgrader's own validator accepts."""

from pathlib import Path

import nbformat
import pytest
from committed import FOLDER, NAMES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbgrader.nbgraderformat import MetadataValidator

from tools.notebooks.exercises import find_exercises
from tools.notebooks.grading import OTHER_SEED, assignment, main, write_assignment
from tools.notebooks.points import points_of
from tools.notebooks.stamp import badge, read_notebook, repository

TEXT = "### Exercise {} · A title · {}\n\nDo it."
RUBRIC = "\n\n**Rubric**\n\n- 2 points: a control.\n- 1 point: a sentence."
CODE = "def f():\n    # solution\n    return SEED\n    # end of solution"


def exercise(number, level="easy", check="assert f() == 1, 'one'", text="", **metadata):
    """The cells of an exercise; without a check if that is None."""
    cells = [
        new_markdown_cell(TEXT.format(number, level) + text),
        new_code_cell(CODE, metadata={"tags": ["exercise"]}, outputs=[new_output("stream", text="1")]),
    ]
    tags = {"tags": ["check"], **metadata}
    return cells if check is None else [*cells, new_code_cell(check, metadata=tags, execution_count=3)]


def chapter(*cells):
    title = new_markdown_cell(f"# 01 · A\n\n{badge('01_a', repository())}\n\n**A promise.**")
    return new_notebook(cells=[title, new_code_cell("SEED = 0", metadata={"tags": ["setup"]}), *cells])


def marks(notebook):
    """(grade_id, locked, solution, points) of every cell."""
    keys = ("grade_id", "locked", "solution", "points")
    return [tuple(cell.metadata.nbgrader.get(key) for key in keys) for cell in notebook.cells]


def test_each_part_of_an_exercise_becomes_its_kind_of_cell():
    explained, run = new_markdown_cell("## Section"), new_code_cell("1 / 0")
    later = new_code_cell("ONE = 1", metadata={"tags": ["setup"]})
    made = assignment(
        chapter(
            explained,
            run,
            *exercise(1, "hard"),
            later,
            *exercise(2, points=5),
            *exercise(3, "open", text=RUBRIC),
        )
    )
    assert marks(made) == [
        ("introduction", True, False, None),
        ("setup-1", True, False, None),
        ("exercise-1-text", True, False, None),
        ("exercise-1", False, True, None),
        ("exercise-1-check", True, False, 3),
        ("setup-7", True, False, None),
        ("exercise-2-text", True, False, None),
        ("exercise-2", False, True, None),
        ("exercise-2-check", True, False, 5),
        ("exercise-3-text", True, False, None),
        ("exercise-3", False, True, None),
        ("exercise-3-check", True, False, 1),
        ("exercise-3-written", False, True, 3),
    ]
    assert [cell.metadata.nbgrader.grade for cell in made.cells] == [
        row[-1] is not None for row in marks(made)
    ]
    assert made.cells[0].source.startswith("# 01 · A · exercises\n\n")
    assert made.cells[3].source == "def f():\n    ### BEGIN SOLUTION\n    return SEED\n    ### END SOLUTION"
    assert all(
        not cell.outputs and not cell.execution_count for cell in made.cells if cell.cell_type == "code"
    )
    MetadataValidator().validate_nb(made)
    nbformat.validate(made)


def test_an_open_exercise_without_a_check_is_graded_by_its_rubric_alone():
    made = assignment(chapter(*exercise(1, "open", None, RUBRIC)))
    assert [row[0] for row in marks(made)][3:] == ["exercise-1", "exercise-1-written"]
    MetadataValidator().validate_nb(made)


def test_hidden_tests_are_the_check_with_another_seed():
    check = "draw = Random(SEED)\nassert f() == draw, f'{SEED}: expected {draw}, got {f()} (SEEDS)'"
    source = assignment(chapter(*exercise(1, check=check))).cells[-1].source
    seen, hidden = source.split("\n### BEGIN HIDDEN TESTS\n")
    assert seen == check
    other = f"(SEED + {OTHER_SEED})"
    expected = check.replace("Random(SEED)", f"Random({other})").replace("{SEED}", f"{{{other}}}")
    assert hidden == expected + "\n### END HIDDEN TESTS"
    without_a_seed = "assert f() == 1, 'one'"
    assert assignment(chapter(*exercise(1, check=without_a_seed))).cells[-1].source == without_a_seed


@pytest.mark.parametrize("name", NAMES)
def test_committed_chapters_are_valid_assignments(name):
    notebook = read_notebook(FOLDER / f"{name}.ipynb")
    made = assignment(notebook)
    MetadataValidator().validate_nb(made)
    points = [points_of(notebook, exercise) for exercise in find_exercises(notebook)]
    assert sum(row[-1] or 0 for row in marks(made)) == sum(p.check + p.rubric for p in points) > 0


def test_command_line_writes_a_course_and_keeps_its_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "no notebooks in notebooks/" in capsys.readouterr().err
    Path("notebooks").mkdir()
    nbformat.write(chapter(*exercise(1, "hard"), *exercise(2, "open", text=RUBRIC)), "notebooks/01_a.ipynb")
    assert main([]) == 0
    assert capsys.readouterr().out == "notebooks/01_a.ipynb: 7 points\n"
    made = nbformat.read("build/nbgrader/source/01_a/01_a.ipynb", as_version=4)
    assert marks(made)[-1] == ("exercise-2-written", False, True, 3)
    settings = Path("build/nbgrader/nbgrader_config.py")
    settings.write_text("# mine")
    assert main(["notebooks/01_a.ipynb"]) == 0
    assert settings.read_text() == "# mine"
    nbformat.write(chapter(*exercise(1, "open")), "notebooks/01_a.ipynb")
    assert main([]) == 1
    assert "exercise 1 has no rubric" in capsys.readouterr().err
    with pytest.raises(ValueError, match="exercise 1 has no rubric"):
        write_assignment(Path("notebooks/01_a.ipynb"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
