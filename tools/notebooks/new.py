"""Start a chapter: `python -m tools.notebooks.new 12_mine` writes notebooks/12_mine.ipynb, executed once.

It begins as a copy of skeleton.ipynb, which passes `make lint` and the notebook tests. Replace its text and
code; keep the tags. "quick" in its metadata holds the values of a test run, other than the defaults.
"""

import re
import sys
from pathlib import Path

from nbclient import NotebookClient

from tools.notebooks.stamp import read_notebook, repository, stamped, write_notebook


def new_chapter(name: str, folder: Path = Path("notebooks")) -> Path:
    """Write the chapter NN_words, execute it once, and return the file's path.

    Raises ValueError for another form of name, FileExistsError for a file that is there.
    """
    path = folder / f"{name}.ipynb"
    match = re.fullmatch(r"(\d\d)_([a-z0-9]+(?:_[a-z0-9]+)*)", name)
    if not match:
        raise ValueError(f"a chapter's name is two digits and words in small letters, 12_mine; got '{name}'")
    if path.exists():
        raise FileExistsError(f"{path}: there is such a chapter already")
    notebook = read_notebook(Path(__file__).with_name("skeleton.ipynb"))
    title = f"# {match[1]} · {match[2].replace('_', ' ').capitalize()}"
    notebook.cells[0].source = notebook.cells[0].source.replace("# 00 · Title", title)
    notebook = stamped(notebook, name, repository())
    options = {"record_timing": False, "extra_arguments": ["--log-level=ERROR"], "kernel_name": "python3"}
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    write_notebook(path, notebook)
    return path


if __name__ == "__main__":
    try:
        print(f"{new_chapter(' '.join(sys.argv[1:]))}: written")
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")
