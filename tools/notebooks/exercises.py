"""Exercises of the notebooks: students' copies, solutions, and a proof that both do what they should.

    python -m tools.notebooks.exercises [NOTEBOOK …]          # build/exercises/{students,solutions}/
    python -m tools.notebooks.exercises --check [NOTEBOOK …]  # stubs fail their checks, solutions pass

A notebook holds the solved exercises, each as three cells in a row. The first is Markdown that begins with
`### Exercise 2 · its title · easy` (or medium, hard, open). The second is code tagged `exercise`, a function:
`# solution` and `# end of solution` enclose what students write. The third is code tagged `check` with
asserts; an open exercise may lack it. Exercises need cells tagged `setup` and earlier exercises, no others.
`tools.notebooks.points` says what they are worth, and `tools.notebooks.grading` makes a course of them.
"""

import ast
import copy
import json
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from tools.notebooks.links import relinked
from tools.notebooks.stamp import for_each, has_tag, read_notebook, without_badge, write_notebook

LEVELS = ("easy", "medium", "hard", "open")
BEGIN, END = "# solution", "# end of solution"
OUT = Path("build/exercises")
TIMEOUT = 600  # seconds for one cell
Run = Callable[[str], str]


class Exercise(NamedTuple):
    """One exercise of a notebook; `cell` is the index of its function's cell."""

    number: int
    title: str
    level: str
    cell: int
    stub: str
    solution: str
    check: str | None


def find_exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a notebook in their order.

    Raises ValueError for the first one that is malformed.
    """
    cells, found = notebook.cells, []
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown" and re.match(r"### Exercise\b", cell.source):
            found.append(_exercise(cells, index, len(found) + 1))
    parts = {e.cell for e in found} | {e.cell + 1 for e in found if e.check}
    for index, cell in enumerate(cells):
        if (has_tag(cell, "exercise") or has_tag(cell, "check")) and index not in parts:
            raise ValueError(f"cell {index + 1} is tagged as a part of an exercise that has no heading")
    return found


def _exercise(cells: list[NotebookNode], index: int, number: int) -> Exercise:
    """The exercise whose heading is cells[index]."""
    heading = cells[index].source.partition("\n")[0]
    match = re.fullmatch(rf"### Exercise {number} · (.*\S) · ({'|'.join(LEVELS)})", heading)
    if not match:
        form = f"### Exercise {number} · its title · {'|'.join(LEVELS)}"
        raise ValueError(f"exercise {number}'s heading must read '{form}', got '{heading}'")
    title, level = match.groups()
    code, check = (
        next((cell.source for cell in cells[at : at + 1] if has_tag(cell, tag)), None)
        for at, tag in ((index + 1, "exercise"), (index + 2, "check"))
    )
    if code is None:
        raise ValueError(f"exercise {number} has no cell tagged 'exercise' right after its heading")
    if check is None and level != "open":
        raise ValueError(f"exercise {number} has no cell tagged 'check' right after its function")
    if check is not None and not any(map(is_assert, ast.walk(_parse(check, f"exercise {number}'s check")))):
        raise ValueError(f"exercise {number}'s check asserts nothing")
    return Exercise(number, title, level, index + 1, _stub(code, number, title), code, check)


def _stub(code: str, number: int, title: str) -> str:
    """The code without the lines between the markers."""
    lines = code.split("\n")
    markers = [(line.strip(), at) for at, line in enumerate(lines) if line.strip() in (BEGIN, END)]
    if [marker for marker, _ in markers] != [BEGIN, END]:
        raise ValueError(f"exercise {number} needs one line `{BEGIN}` and below it one line `{END}`")
    (_, begin), (_, end) = markers
    if not any(line.strip() and not line.strip().startswith("#") for line in lines[begin + 1 : end]):
        raise ValueError(f"exercise {number} has no code between `{BEGIN}` and `{END}`")
    message = json.dumps(f"Exercise {number}: {title}", ensure_ascii=False)
    raising = f"{lines[begin].partition('#')[0]}raise NotImplementedError({message})"
    stub = "\n".join([*lines[:begin], raising, *lines[end + 1 :]])
    _parse(code, f"exercise {number}'s solution")
    nodes = ast.walk(_parse(stub, f"exercise {number}'s stub"))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    if not any(function.lineno <= begin + 1 <= function.end_lineno for function in functions):
        raise ValueError(f"exercise {number} has its solution outside of a function; its stub would be empty")
    return stub


def _parse(code: str, what: str) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise ValueError(f"{what} isn't Python ({error.msg}, line {error.lineno})") from error


def is_assert(node: ast.AST) -> bool:
    """Whether a node of the syntax tree is an assert or a call such as torch.testing.assert_close(…)."""
    called = getattr(node, "func", None)
    return isinstance(node, ast.Assert) or getattr(called, "attr", "").startswith("assert_")


def write_copies(path: Path, out_dir: Path = OUT) -> list[Exercise]:
    """Write out_dir/students/NAME.ipynb and out_dir/solutions/NAME.ipynb, and return the exercises.

    The students' copy has stubs and no outputs; the other is the notebook as it is. Both can be handed out
    alone: links to files of the repository become web addresses, and the badge, which opens the original, is
    gone. Raises ValueError if an exercise is malformed.
    """
    notebook = read_notebook(path)
    exercises = find_exercises(notebook)
    solutions = alone(notebook, path)
    students = copy.deepcopy(solutions)
    for exercise in exercises:
        students.cells[exercise.cell].source = exercise.stub
    for cell in students.cells:
        if cell.cell_type == "code":
            cell |= {"outputs": [], "execution_count": None}
    for folder, notebook in (("students", students), ("solutions", solutions)):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
        write_notebook(out_dir / folder / path.name, notebook)
    return exercises


def alone(notebook: NotebookNode, path: Path) -> NotebookNode:
    """A copy of a notebook without its badge, and with web addresses in place of files of the repository."""
    folder = path.resolve().parent

    def stays(target: Path) -> bool:
        return target.parent == folder  # a notebook that is copied too

    fresh = copy.deepcopy(notebook)
    for number, cell in enumerate(fresh.cells):
        if cell.cell_type == "markdown":
            text = cell.source if number else without_badge(cell.source)
            cell.source = relinked(text, folder, folder.parent, stays)
    return fresh


@contextmanager
def kernel(timeout: int = TIMEOUT) -> Iterator[Run]:
    """A kernel's run(code): the error that the code raises, or an empty string.

    timeout: seconds for one run; what takes longer is interrupted.
    """
    ran = nbformat.v4.new_notebook()
    client = NotebookClient(ran, timeout=timeout, interrupt_on_timeout=True, kernel_name="python3")

    def run(source: str) -> str:
        ran.cells.append(nbformat.v4.new_code_cell(source))
        try:
            client.execute_cell(ran.cells[-1], len(ran.cells) - 1)
        except CellExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        except DeadKernelError as error:
            return str(error)
        return ""

    with client.setup_kernel():
        yield run


def check_exercises(path: Path, run: Run) -> list[str]:
    """Show that every stub fails its check and every solution passes; what is wrong, a sentence each.

    run: a kernel's, see `kernel`. It forgets what it ran before, and runs the cells tagged `setup` and of
    each exercise stub, check, solution, check, in this order. The first check must end with the stub's own
    NotImplementedError. Raises ValueError if an exercise is malformed.
    """
    notebook = read_notebook(path)
    exercises = {exercise.cell: exercise for exercise in find_exercises(notebook)}
    run("%reset -f")  # what is imported stays, which takes most of a chapter's time
    if error := run(f"import os; os.chdir({str(path.resolve().parent)!r})"):
        return [f"can't be tried ({error})"]
    problems = []
    for index, cell in enumerate(notebook.cells):
        if index in exercises:
            problems += _try_exercise(exercises[index], run)
        elif has_tag(cell, "setup") and (error := run(cell.source)):
            return [*problems, f"cell {index + 1}, tagged 'setup', fails ({error})"]
    return problems


def _try_exercise(exercise: Exercise, run: Run) -> Iterator[str]:
    """What is wrong with an exercise when it is run."""
    own = f"NotImplementedError: Exercise {exercise.number}: "
    if error := run(exercise.stub):
        yield f"exercise {exercise.number}'s stub fails before its check ({error}); it may only define"
    elif exercise.check and not (error := run(exercise.check)):
        yield f"exercise {exercise.number}'s stub passes its check, which so tests nothing"
    elif exercise.check and not error.startswith(own):
        yield f"exercise {exercise.number}'s stub fails its check with another error than its own ({error})"
    if error := run(exercise.solution):
        yield f"exercise {exercise.number}'s solution fails ({error})"
    elif exercise.check and (error := run(exercise.check)):
        yield f"exercise {exercise.number}'s solution fails its check ({error})"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the copies of the named notebooks, or of all in notebooks/, or try the exercises."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all in notebooks/")
    add("--check", action="store_true", help="try the exercises in place of writing the copies")
    add("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)

    def copies(path: Path) -> list[str]:
        print(f"{path}: {len(write_copies(path, args.out))} exercises")
        return []

    if not args.check:
        return for_each(args.notebooks, copies)
    with kernel() as run:
        return for_each(args.notebooks, lambda path: check_exercises(path, run))


if __name__ == "__main__":
    sys.exit(main())
