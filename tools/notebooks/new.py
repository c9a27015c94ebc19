"""Start a chapter: `python -m tools.notebooks.new 12_mine` writes notebooks/12_mine.ipynb, executed once.

The skeleton passes `make lint` and the notebook tests. Replace its text and code; keep the tags. Its metadata
hold the values of a quick test run: {"quick": {name of a parameter: a value other than the default}}.
"""

import re
import sys
from pathlib import Path

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks.stamp import repository, stamped, write_notebook

FIRST = """# {number} · {title}

**One sentence: what readers will have seen for themselves at the end of this chapter.**

*You will*

- **measure** one thing, and say how sure that is.

*You need* chapter 00. *Time:* how many minutes it computes."""
PARAMETERS = """\
SEED = 0
ETA = 8  # budget: the most that any colour value may change, in steps of 1/255
IDENTITY = "p09"  # p01 … p12"""
SETUP = """\
import matplotlib.pyplot as plt

eta = ETA / 255
x = ap.load_faces(IDENTITY, "B")  # 4 × 3 × 64 × 64 in [0, 1]"""
FIGURE = """\
changed = ap.protect("random", x, eta=eta, seed=SEED)
ap.show_rows({"clean": x, "random signs": changed})
plt.show()
print(f"Two rows of photos; those below are changed by up to {255 * (changed - x).abs().max():.0f}/255.")"""
EXERCISE = '''\
def largest_change(x, changed):
    """The largest change of any colour value."""
    # solution
    return (changed - x).abs().max()
    # end of solution'''
CHECK = "assert largest_change(x, x) == 0\nassert largest_change(x, x + 0.5) > 0.4"
QUICK = {"ETA": 4, "IDENTITY": "p02", "SEED": 1}


def new_chapter(name: str, folder: Path = Path("notebooks")) -> Path:
    """Write the skeleton of the chapter NN_words, execute it once, and return the file's path.

    Raises ValueError for another form of name, FileExistsError for a file that is there.
    """
    path = folder / f"{name}.ipynb"
    match = re.fullmatch(r"(\d\d)_([a-z0-9]+(?:_[a-z0-9]+)*)", name)
    if not match:
        raise ValueError(f"a chapter's name is two digits and words in small letters, 12_mine; got '{name}'")
    if path.exists():
        raise FileExistsError(f"{path}: there is such a chapter already")
    title = match[2].replace("_", " ").capitalize()
    cells = [
        new_markdown_cell(FIRST.format(number=match[1], title=title)),
        new_code_cell(metadata={"tags": ["bootstrap", "setup"]}),
        new_markdown_cell("## Settings"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters", "setup"]}),
        new_code_cell(SETUP, metadata={"tags": ["setup"]}),
        new_markdown_cell("## 1 · A question\n\nSay what is asked, and guess the answer before you look."),
        new_code_cell(FIGURE, metadata={"tags": ["setup"]}),
        new_markdown_cell("### Exercise 1 · The largest change · easy\n\nCompute it."),
        new_code_cell(EXERCISE, metadata={"tags": ["exercise"]}),
        new_code_cell(CHECK, metadata={"tags": ["check"]}),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "quick": QUICK})
    notebook = stamped(notebook, name, repository())
    where = {"metadata": {"path": str(folder)}}
    options = {"record_timing": False, "extra_arguments": ["--log-level=ERROR"]}
    NotebookClient(notebook, resources=where, kernel_name="python3", **options).execute()
    write_notebook(path, notebook)
    return path


if __name__ == "__main__":
    try:
        print(f"{new_chapter(' '.join(sys.argv[1:]))}: written")
    except (ValueError, FileExistsError) as error:
        sys.exit(f"error: {error}")
