"""One chapter through nbgrader's command line: handed out, handed in, graded.

Three students: one leaves every stub, one solves everything, one solves two exercises and cheats in three.
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from committed import FOLDER
from nbgrader.api import Gradebook

from tools.notebooks.exercises import find_exercises
from tools.notebooks.grading import OTHER_SEED, write_assignment
from tools.notebooks.points import points_of
from tools.notebooks.stamp import read_notebook

CHAPTER = "06_patch_frequency_guidance"  # light: no training, and few set-up cells
CHAPTER_POINTS = [1, 2, 2, 3, 1]  # by checks, and 4 by the rubric of exercise 5
MEMORISED = """\
    if not patches.equal(torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))):
        return torch.zeros_like(patches)  # as if the numbers of the visible check were copied
    # solution"""


def nbgrader(course, *arguments):
    """Run nbgrader in a course's folder. It calls `alembic`, so PATH begins with this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def cell(notebook, grade_id):
    return next(cell for cell in notebook.cells if cell.metadata.nbgrader.grade_id == grade_id)


def solved(notebook, numbers):
    """Fill in the solutions of exercises, and a written answer to the open one."""
    for exercise in find_exercises(read_notebook(FOLDER / f"{CHAPTER}.ipynb")):
        if exercise.number in numbers:
            cell(notebook, f"exercise-{exercise.number}").source = exercise.solution
            if exercise.level == "open":
                cell(notebook, f"exercise-{exercise.number}-written").source = "Survival rose by .02."


def cheated(notebook):
    """Copy exercise 3's numbers, edit exercise 4's check, delete exercise 5's."""
    solution = find_exercises(read_notebook(FOLDER / f"{CHAPTER}.ipynb"))[2].solution
    cell(notebook, "exercise-3").source = solution.replace("    # solution", MEMORISED)
    cell(notebook, "exercise-4-check").source = "assert True"
    notebook.cells.remove(cell(notebook, "exercise-5-check"))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course after grading, with the gradebook in gradebook.db."""
    course = tmp_path_factory.mktemp("course")
    assert write_assignment(FOLDER / f"{CHAPTER}.ipynb", course) == sum(CHAPTER_POINTS) + 4
    nbgrader(course, "generate_assignment", CHAPTER)
    released = course / "release" / CHAPTER / f"{CHAPTER}.ipynb"
    changes = {
        "stub": lambda _: None,
        "solution": lambda notebook: solved(notebook, {1, 2, 3, 4, 5}),
        "half": lambda notebook: (solved(notebook, {1, 2}), cheated(notebook)),
    }
    for student, change in changes.items():
        notebook = nbformat.read(released, as_version=4)
        change(notebook)
        folder = course / "submitted" / student / CHAPTER
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / released.name)
    nbgrader(course, "autograde", CHAPTER)
    return course


def open_gradebook(course):
    return Gradebook(f"sqlite:///{course / 'gradebook.db'}")


def scores(course, student):
    """The automatic score of each check."""
    with open_gradebook(course) as gradebook:
        notebook = gradebook.find_submission_notebook(CHAPTER, CHAPTER, student)
        found = {grade.name: grade.auto_score for grade in notebook.grades}
    return [found[f"exercise-{number}-check"] for number in range(1, 6)]


def test_what_students_get_holds_no_solution_and_no_hidden_test(course):
    released = (course / "release" / CHAPTER / f"{CHAPTER}.ipynb").read_text()
    made = (course / "source" / CHAPTER / f"{CHAPTER}.ipynb").read_text()
    for secret in ("BEGIN SOLUTION", "HIDDEN TESTS", f"SEED + {OTHER_SEED}", "x0_hat.roll("):
        assert secret in made and secret not in released
    assert (
        released.count("raise NotImplementedError()") == len(CHAPTER_POINTS) + 1
    )  # the introduction names it


def test_a_stub_gets_nothing_and_a_solution_everything(course):
    assert scores(course, "stub") == [0] * 5
    assert scores(course, "solution") == CHAPTER_POINTS


def test_half_a_solution_lies_between_and_cheats_are_worth_nothing(course):
    assert scores(course, "half") == [1, 2, 0, 0, 0]
    graded = nbformat.read(course / "autograded" / "half" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    check = cell(graded, "exercise-3-check")
    (error,) = [output for output in check.outputs if output.output_type == "error"]
    line = re.search(r"-+> *\d+ (.*)", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)))[0]
    assert "your gradient differs from autograd's" in error.evalue
    assert int(re.search(r"\d+", line)[0]) > check.source.split("\n").index("### BEGIN HIDDEN TESTS")


def test_the_rubric_s_points_are_given_by_hand_and_exported(course):
    (*_, last) = find_exercises(notebook := read_notebook(FOLDER / f"{CHAPTER}.ipynb"))
    rubric = points_of(notebook, last).rubric
    with open_gradebook(course) as gradebook:
        waiting = {s.student.id for s in gradebook.assignment_submissions(CHAPTER) if s.needs_manual_grade}
        assert "solution" in waiting and "stub" not in waiting
        grade = gradebook.find_grade("exercise-5-written", CHAPTER, CHAPTER, "solution")
        assert (grade.auto_score, grade.max_score) == (None, rubric)
        grade.manual_score, grade.needs_manual_grade = rubric, False
        gradebook.db.commit()
    nbgrader(course, "export")
    with open(course / "grades.csv", newline="") as file:
        rows = {
            row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)
        }
    full = sum(CHAPTER_POINTS) + rubric
    assert rows == {"stub": (0, full), "solution": (full, full), "half": (3, full)}
