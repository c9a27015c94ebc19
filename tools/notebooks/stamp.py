"""Write every notebook's Colab badge and bootstrap cell; the list of chapters for README.

    python -m tools.notebooks.stamp [NOTEBOOK …]     # the named notebooks, or all

Badge and bootstrap hold the repository's address. Its one place is `Repository` in pyproject.toml: whoever
forks the project changes that line and runs this. The list holds the notebooks' titles and promises.
"""

import copy
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
COLAB = "https://colab.research.google.com"
BADGE = re.compile(rf"\[!\[[^\]]*\]\({re.escape(COLAB)}/assets/colab-badge\.svg\)\]\([^)]*\)")
BOOTSTRAP = """\
try:
    import antipure_lib as ap
except ModuleNotFoundError as missing:
    import sys

    if missing.name != "antipure_lib" or "google.colab" not in sys.modules:
        remedy = "run `pip install -e .[all]` in the folder of README.md"
        raise SystemExit(f"{missing.name} is missing: {remedy}") from missing
    # Colab has the large packages; --no-deps leaves their versions alone. The data come inside the package.
    %pip install --quiet --no-deps dlib-bin face-recognition-models flip-evaluator
    %pip install --quiet --no-deps git+{repository}
    import antipure_lib as ap"""


def repository(pyproject: Path = PYPROJECT) -> str:
    """The project's address on GitHub, without a slash at its end.

    Raises ValueError if pyproject.toml doesn't give it, or gives one that isn't on GitHub.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        form = 'Repository = "https://github.com/OWNER/NAME"'
        problem = f"[project.urls] needs {form}, got '{address}'; Colab opens no other"
        raise ValueError(f"pyproject.toml: {problem}")
    return address


def badge(name: str, address: str) -> str:
    """The line that shows a badge and opens notebooks/NAME.ipynb of `address` in Colab."""
    owner_and_repository = address.removeprefix("https://github.com/")
    target = f"{COLAB}/github/{owner_and_repository}/blob/main/notebooks/{name}.ipynb"
    return f"[![Open {name} in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def with_badge(first: str, line: str) -> str:
    """The text of a notebook's first cell with `line` as its only badge, under the title.

    Raises ValueError for a text that doesn't begin with a title ("# …").
    """
    title, *rest = without_badge(first).split("\n\n", 1)
    if not title.startswith("# "):
        raise ValueError("must begin with a Markdown cell whose first line is the title ('# …')")
    return "\n\n".join([title, line, *rest])


def without_badge(first: str) -> str:
    """The text of a notebook's first cell without its badge, one empty line under the title."""
    kept = "\n".join(line for line in first.split("\n") if not BADGE.fullmatch(line))
    title, _, rest = kept.partition("\n")
    return f"{title}\n\n{rest}" if (rest := rest.lstrip("\n")) else title


def stamped(notebook: NotebookNode, name: str, address: str) -> NotebookNode:
    """A copy of the notebook notebooks/NAME.ipynb with a fresh badge and a fresh bootstrap cell.

    Raises ValueError if it has no title, or if its first code cell isn't the only one tagged 'bootstrap'.
    """
    fresh = copy.deepcopy(notebook)
    code = [cell for cell in fresh.cells if cell.cell_type == "code"]
    if [has_tag(cell, "bootstrap") for cell in code] != [True] + [False] * (len(code) - 1):
        raise ValueError("must have one code cell tagged 'bootstrap', and it must be the first")
    first = fresh.cells[0]
    first.source = with_badge(first.source if first.cell_type == "markdown" else "", badge(name, address))
    code[0].source = BOOTSTRAP.replace("{repository}", address)
    return fresh


def title_and_promise(notebook: NotebookNode, stem: str) -> tuple[str, str]:
    """The heading of a notebook's first Markdown cell (else `stem`), and the line of text that follows it."""
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if not title.startswith("# "):
        return stem, ""
    # Badges, pictures and HTML may come between the two.
    promise = next((line for line in rest if line[0] not in "#[!<"), "")
    return title.lstrip("# "), re.sub(r"\*+", "", promise).strip("*_> ")


def with_chapters(readme: str, folder: Path = Path("notebooks")) -> str:
    """README's text with a fresh list of the chapters in a folder between its two marks."""
    paths = sorted(folder.glob("*.ipynb"))
    chapters = [(path.name, *title_and_promise(read_notebook(path), path.stem)) for path in paths]
    rows = [f"| [{title}](notebooks/{name}) | {promise} |\n" for name, title, promise in chapters]
    return between_marks(readme, "chapters", "".join(["| chapter | |\n|---|---|\n", *rows]))


def between_marks(text: str, name: str, part: str) -> str:
    """The text with `part` in place of what stands between the mark of this name and the next end mark."""
    mark = f"<!-- {name}, written by `make stamp` -->\n"
    return re.sub(f"(?<={mark}).*?(?=<!-- end -->)", lambda _: part, text, flags=re.DOTALL)


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def read_notebook(path: Path) -> NotebookNode:
    """A notebook as its file holds it, with sources as one string each.

    Raises ValueError if nbformat finds it invalid; nothing is repaired, such as a cell without an id.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what nbformat would repair
            notebook = nbformat.reader.reads(path.read_text(encoding="utf-8"))
            nbformat.validate(notebook)
    except (ValueError, LookupError, TypeError, AttributeError, Warning, nbformat.ValidationError) as error:
        raise ValueError(f"can't be read as a notebook ({str(error).partition(chr(10))[0]})") from error
    return notebook


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    write_text(path, nbformat.writes(notebook) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def for_each(paths: Sequence[Path], work: Callable[[Path], Iterable[str]]) -> int:
    """work(path) of the given notebooks, or of all in notebooks/. Returns the exit status.

    Prints a line for each problem that `work` returns or raises.
    """
    paths = paths or sorted(Path("notebooks").glob("*.ipynb"))
    problems = [] if paths else ["no notebooks in notebooks/; run in the project's folder or name some"]
    for path in paths:
        try:
            problems += [f"{path}: {problem}" for problem in work(path)]
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def stamp(path: Path) -> list[str]:
    """Write a notebook's badge and bootstrap cell; no problem can be left."""
    notebook = read_notebook(path)
    fresh = stamped(notebook, path.stem, repository())
    if fresh != notebook:
        write_notebook(path, fresh)
        print(f"{path}: stamped")
    return []


def main(argv: Sequence[str]) -> int:
    """Stamp the named notebooks, or all, and return the exit status."""
    return for_each([Path(name) for name in argv], stamp)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
