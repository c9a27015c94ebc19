"""tools/notebooks/exercises.py: students' copies, solutions, and the runner that tries both.

Last, the exercises of the committed notebooks: every stub fails its check and every solution passes.
"""

from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from committed import FOLDER, NAMES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebooks import exercises
from tools.notebooks.exercises import check_exercises, find_exercises, kernel, main, write_copies
from tools.notebooks.stamp import badge, repository

DOUBLE = """\
def double(x):
    \"\"\"Twice x.\"\"\"
    # solution
    if x:
        return 2 * x
    # end of solution
    return x"""
STUB = """\
def double(x):
    \"\"\"Twice x.\"\"\"
    raise NotImplementedError("Exercise 1: \\"Twice\\" · by η")
    return x"""


def exercise(number, code, check="assert f() == 1", title="A title", level="easy"):
    """The cells of an exercise; without a check if that is None."""
    cells = [
        new_markdown_cell(f"### Exercise {number} · {title} · {level}\n\nDo it."),
        new_code_cell(code, metadata={"tags": ["exercise"]}),
    ]
    return cells if check is None else [*cells, new_code_cell(check, metadata={"tags": ["check"]})]


def returning(value, before=""):
    return f"{before}def f():\n    # solution\n    return {value}\n    # end of solution"


def setup(code):
    return new_code_cell(code, metadata={"tags": ["setup"]})


@pytest.fixture
def write(tmp_path):
    """write(cell, …) makes notebooks/01_a.ipynb."""

    def write(*cells) -> Path:
        path = tmp_path / "notebooks" / "01_a.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=list(cells)), path)
        return path

    return write


@pytest.fixture(scope="module")
def run():
    with kernel() as run:
        yield run


def test_stub_keeps_all_but_what_is_marked():
    cells = exercise(1, DOUBLE, "assert double(2) == 4", title='"Twice" · by η', level="hard")
    (found,) = find_exercises(new_notebook(cells=[new_markdown_cell("# A"), *cells]))
    assert (found.number, found.title, found.level, found.cell) == (1, '"Twice" · by η', "hard", 2)
    assert (found.stub, found.solution, found.check) == (STUB, DOUBLE, "assert double(2) == 4")
    names = {}
    exec(found.stub, names)
    with pytest.raises(NotImplementedError, match='Exercise 1: "Twice" · by η'):
        names["double"](2)


def test_exercises_may_be_absent_and_an_open_one_needs_no_check():
    assert find_exercises(new_notebook(cells=[new_markdown_cell("### Exercises"), new_code_cell("x")])) == []
    cells = exercise(1, returning(1)) + exercise(2, returning(2), None, level="open")
    first, second = find_exercises(new_notebook(cells=cells))
    assert (first.check, second.check, second.level) == ("assert f() == 1", None, "open")


def without_tag(index):
    cells = exercise(1, returning(1))
    cells[index].metadata.tags = []
    return cells


MALFORMED = {
    "no level": ([new_markdown_cell("### Exercise 1 · A title")], "heading must read"),
    "unknown level": (exercise(1, returning(1), level="tricky"), "heading must read .* got '.*tricky'"),
    "no title": (exercise(1, returning(1), title=" "), "heading must read"),
    "wrong number": (exercise(2, returning(1)), "exercise 1's heading must read"),
    "number twice": (exercise(1, returning(1)) + exercise(1, returning(2)), "exercise 2's heading must read"),
    "no code": (without_tag(1), "exercise 1 has no cell tagged 'exercise'"),
    "heading alone": (exercise(1, "")[:1], "exercise 1 has no cell tagged 'exercise'"),
    "no check": (exercise(1, returning(1), None), "exercise 1 has no cell tagged 'check'"),
    "check without its tag": (without_tag(2), "exercise 1 has no cell tagged 'check'"),
    "check without assert": (exercise(1, returning(1), "f() == 1"), "exercise 1's check asserts nothing"),
    "check not Python": (exercise(1, returning(1), "assert f("), "exercise 1's check isn't Python"),
    "no heading": (exercise(1, returning(1))[1:], "cell 1 is tagged as a part of an exercise"),
    "second check": (exercise(1, returning(1)) + without_tag(1)[2:], "cell 4 is tagged as a part"),
    "no marker": (exercise(1, "def f():\n    return 1"), "needs one line `# solution`"),
    "no end": (exercise(1, "def f():\n    # solution\n    return 1"), "below it one line `# end of"),
    "markers in the wrong order": (
        exercise(1, "def f():\n    # end of solution\n    return 1\n    # solution"),
        "needs one line `# solution`",
    ),
    "nothing to do": (
        exercise(1, "def f():\n    # solution\n    # one\n    # end of solution\n    return 1"),
        "has no code between",
    ),
    "empty stub": (exercise(1, "# solution\ndef f():\n    return 1\n# end of solution"), "outside of a func"),
    "stub not Python": (
        exercise(1, "def f():\n    # solution\n    if 1:\n        # end of solution\n        return 1"),
        "exercise 1's stub isn't Python .unexpected indent, line 3",
    ),
    "solution not Python": (exercise(1, returning("1 +")), "exercise 1's solution isn't Python"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_exercise_is_refused(name):
    cells, message = MALFORMED[name]
    with pytest.raises(ValueError, match=message):
        find_exercises(new_notebook(cells=cells))


def test_copies(write, tmp_path):
    links = "# A\n\n{}[b](02_b.ipynb) ![c]({}/c.png{}) [d]({}/d.md#e) [f](../f.md)"
    title = new_markdown_cell(links.format(badge("01_a", repository()) + "\n\n", "..", "", ".."))
    shown = new_code_cell("1", execution_count=3, outputs=[new_output("stream", text="1")])
    path = write(title, setup("pass"), *exercise(1, DOUBLE, "assert double(1) == 2"), shown)
    for name in ("02_b.ipynb", "../c.png", "../d.md"):
        (path.parent / name).touch()
    original = path.read_bytes()
    assert len(write_copies(path, tmp_path / "out")) == 1
    assert path.read_bytes() == original

    source, students, solutions = (
        nbformat.read(file, as_version=4)
        for file in (path, *(tmp_path / "out" / name / "01_a.ipynb" for name in ("students", "solutions")))
    )
    web = f"{repository()}/blob/main"
    source.cells[0].source = links.format("", web, "?raw=true", web)
    assert solutions == source
    source.cells[3].source = source.cells[3].source.replace(
        "# solution\n    if x:\n        return 2 * x\n    # end of solution",
        'raise NotImplementedError("Exercise 1: A title")',
    )
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    assert students == source


def test_runner_reports_what_is_wrong(write, run):
    check = "assert f() == ONE"
    path = write(
        new_markdown_cell("# A"),
        setup("ONE = 1"),
        new_code_cell("ONE = 2"),
        *exercise(1, returning("ONE"), check),
        *exercise(2, returning(2), "assert f or True"),
        *exercise(3, returning(2), check),
        *exercise(4, returning(1), "assert undefined or f() == 1"),
        *exercise(5, returning(1, before="undefined\n\n\n"), check),
        *exercise(6, returning(1), "assert f.__name__ == 'g' or g()"),
        *exercise(7, returning(1), "import os\n\nassert os.path.exists('01_a.ipynb')\nassert f() == 1"),
        *exercise(8, returning(1), None, level="open"),
        setup("TWO = 2"),
        *exercise(9, returning("TWO"), "assert f() == 2"),
        *exercise(10, returning(1), "try:\n    f()\nexcept NotImplementedError:\n    assert True"),
        *exercise(11, returning(1), "def g():\n    raise NotImplementedError('x')\n\n\nassert g() or f()"),
    )
    expected = [
        "exercise 2's stub passes its check",
        "exercise 3's solution fails its check (AssertionError",
        "exercise 4's stub fails its check with another error than its own (NameError",
        "exercise 4's solution fails its check (NameError",
        "exercise 5's stub fails before its check (NameError",
        "exercise 5's solution fails (NameError",
        "exercise 6's stub fails its check with another error than its own (NameError",
        "exercise 6's solution fails its check (NameError",
        "exercise 10's stub passes its check",
        "exercise 11's stub fails its check with another error than its own (NotImplementedError: x",
        "exercise 11's solution fails its check (NotImplementedError: x",
    ]
    problems = check_exercises(path, run)
    assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True))


def test_runner_stops_at_a_setup_cell_that_fails(write, run):
    path = write(*exercise(1, returning(2)), setup("1 / 0"), *exercise(2, returning(2)))
    first, second = check_exercises(path, run)
    assert first.startswith("exercise 1's solution fails its check")
    assert second.startswith("cell 4, tagged 'setup', fails (ZeroDivisionError")


def test_a_notebook_knows_nothing_of_the_one_before(write, run):
    assert check_exercises(write(setup("ONE = 1"), *exercise(1, returning("ONE"))), run) == []
    (problem,) = check_exercises(write(*exercise(1, returning("ONE"))), run)
    assert problem.startswith("exercise 1's solution fails its check (NameError")


def test_runner_goes_on_after_a_cell_that_hangs_and_tells_of_a_kernel_that_died(write):
    with kernel(timeout=3) as run:
        (problem,) = check_exercises(write(setup("import time; time.sleep(60)"), *exercise(1, DOUBLE)), run)
        assert problem.startswith("cell 1, tagged 'setup', fails (KeyboardInterrupt")
        assert check_exercises(write(*exercise(1, returning(1))), run) == []
        for _ in range(2):
            (problem,) = check_exercises(write(setup("os._exit(1)")), run)
            assert "Kernel died" in problem  # the second time before its first cell


def test_command_line(write, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exercises, "kernel", lambda: nullcontext(run))
    assert main([]) == 1
    assert "no notebooks in notebooks/" in capsys.readouterr().err
    write(*exercise(1, returning(1)))
    assert main([]) == main(["--check", "notebooks/01_a.ipynb"]) == 0
    assert capsys.readouterr() == ("notebooks/01_a.ipynb: 1 exercises\n", "")
    copies = Path("build/exercises").glob("*/01_a.ipynb")
    assert {path.parent.name for path in copies} == {"students", "solutions"}
    write(*exercise(1, returning(1), None))
    assert main(["--check"]) == main(["notebooks/01_a.ipynb", "gone.ipynb"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == errors[1]
    assert errors[0].startswith("notebooks/01_a.ipynb: exercise 1 has no cell tagged 'check'")
    assert errors[2].startswith("gone.ipynb: ")


@pytest.mark.parametrize("name", NAMES)
def test_committed_exercises(name, run):
    assert list(check_exercises(FOLDER / f"{name}.ipynb", run)) == []
