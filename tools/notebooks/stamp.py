"""Write every notebook's Colab badge and bootstrap cell: `python -m tools.notebooks.stamp [NOTEBOOK …]`.

Both hold the repository's address. Its one place is `Repository` in pyproject.toml: whoever forks the project
changes that line and runs this. Nothing else in a notebook is touched. Needs the standard library only.
"""

import copy
import json
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

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
        raise ValueError(
            f"pyproject.toml: [project.urls] needs {form}, got '{address}'; Colab opens no other"
        )
    return address


def badge(name: str, address: str) -> str:
    """The line that shows a badge and opens notebooks/NAME.ipynb of `address` in Colab."""
    owner_and_repository = address.removeprefix("https://github.com/")
    target = f"{COLAB}/github/{owner_and_repository}/blob/main/notebooks/{name}.ipynb"
    return f"[![Open {name} in Colab]({COLAB}/assets/colab-badge.svg)]({target})"


def with_badge(first: str, line: str) -> str:
    """The text of a notebook's first cell with `line` as its only badge, under the title.

    Raises ValueError if there is no title ("# …" in the first line).
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


def stamped(notebook: dict, name: str, address: str) -> dict:
    """A copy of the notebook notebooks/NAME.ipynb with a fresh badge and a fresh bootstrap cell.

    Raises ValueError if it has no title, or if its first code cell isn't the only one tagged 'bootstrap'.
    """
    fresh = copy.deepcopy(notebook)
    code = [cell for cell in fresh["cells"] if cell["cell_type"] == "code"]
    if [has_tag(cell, "bootstrap") for cell in code] != [True] + [False] * (len(code) - 1):
        raise ValueError("must have one code cell tagged 'bootstrap', and it must be the first")
    first = fresh["cells"][0]
    heading = text(first["source"]) if first["cell_type"] == "markdown" else ""
    _write_source(first, with_badge(heading, badge(name, address)))
    _write_source(code[0], BOOTSTRAP.replace("{repository}", address))
    return fresh


def _write_source(cell: dict, new: str) -> None:
    if text(cell["source"]) != new:
        cell["source"] = new.splitlines(keepends=True)


def text(source: str | list[str]) -> str:
    """A source or an output as one string; the file format allows a list of lines too."""
    return source if isinstance(source, str) else "".join(source)


def has_tag(cell: dict, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell["metadata"].get("tags", [])


def read_notebook(path: Path) -> dict:
    """A notebook file as it is, without conversion. Raises ValueError if it isn't one."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("isn't a notebook: it has no list of cells")
    return notebook


def write_notebook(path: Path, notebook: dict) -> None:
    """Write a notebook whole or not at all, laid out as Jupyter does; the order of keys stays."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def main(argv: Sequence[str]) -> int:
    """Stamp the named notebooks, or all in notebooks/, and return the exit status."""
    paths = [Path(name) for name in argv] or sorted(Path("notebooks").glob("*.ipynb"))
    failed = not paths
    if failed:
        print("no notebooks in notebooks/; run in the project's folder or name some")
    for path in paths:
        try:
            notebook = read_notebook(path)
            fresh = stamped(notebook, path.stem, repository())
        except (OSError, ValueError) as error:
            print(f"{path}: {error}")
            failed = True
            continue
        if fresh != notebook:
            write_notebook(path, fresh)
            print(f"{path}: stamped")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
