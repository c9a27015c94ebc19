"""tools/notebooks/stamp.py: badge and bootstrap cell get the project's address, nothing else changes."""

import copy
import json
import re
import sys
import types
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebooks.stamp import (
    BOOTSTRAP,
    badge,
    main,
    repository,
    stamped,
    title_and_promise,
    with_badge,
    with_chapters,
    without_badge,
)

ROOT = Path(__file__).parents[2]
ADDRESS = "https://github.com/someone/a-fork"
BADGE = (
    "[![Open 01_a in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/someone/a-fork/blob/main/notebooks/01_a.ipynb)"
)
OTHER = badge("02_b", "https://github.com/x/y")


@pytest.fixture
def notebook():
    bootstrap = new_code_cell("old", execution_count=1, metadata={"tags": ["bootstrap", "setup"]})
    shown = [new_output("stream", text="8 × 8\nlines\n"), new_output("display_data", {"image/png": "eA=="})]
    cells = [new_markdown_cell("# Title\n\n**Promise.**"), bootstrap, new_code_cell("π = 3", outputs=shown)]
    return new_notebook(cells=cells)


REST = "**Promise.**\n\n- a"


@pytest.mark.parametrize(
    "rest", [f"\n{REST}", REST, f"\n{OTHER}\n\n{REST}", f"{OTHER}\n{REST}", f"\n{REST}\n{OTHER}"]
)
@pytest.mark.parametrize("before", ["", f"{OTHER}\n"])
def test_badge_stands_under_the_title_once(before, rest):
    assert badge("01_a", ADDRESS) == BADGE
    assert with_badge(f"{before}# Title\n{rest}", BADGE) == f"# Title\n\n{BADGE}\n\n{REST}"


@given(st.text(alphabet="a#[!\n ()"))
def test_badge_comes_and_goes_without_a_trace(rest):
    plain = without_badge("# Title\n\n" + rest)
    once = with_badge("# Title\n\n" + rest, BADGE)
    assert with_badge(once, BADGE) == with_badge(with_badge(once, OTHER), BADGE) == once
    assert without_badge(once) == plain
    assert plain.removeprefix("# Title").lstrip("\n") == rest.lstrip("\n")


@pytest.mark.parametrize("first", ["", "Title", "## Title", BADGE])
def test_badge_needs_a_title(first):
    with pytest.raises(ValueError, match="first line is the title"):
        with_badge(first, BADGE)


def test_only_badge_and_bootstrap_change(notebook):
    fresh = stamped(notebook, "01_a", ADDRESS)
    assert notebook.cells[1].source == "old"
    assert fresh.cells[0].source == f"# Title\n\n{BADGE}\n\n**Promise.**"
    assert f" git+{ADDRESS}\n" in fresh.cells[1].source
    assert stamped(fresh, "01_a", ADDRESS) == fresh
    for cell in (*notebook.cells[:2], *fresh.cells[:2]):
        cell.source = ""
    assert fresh == notebook


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells.pop(0), "Markdown cell whose first line"),
        (lambda cells: cells.pop(1), "tagged 'bootstrap'"),
        (lambda cells: cells.insert(1, cells.pop(2)), "tagged 'bootstrap'"),
        (lambda cells: cells.append(copy.deepcopy(cells[1])), "tagged 'bootstrap'"),
    ],
)
def test_what_cannot_be_stamped_is_refused(notebook, change, message):
    change(notebook.cells)
    with pytest.raises(ValueError, match=message):
        stamped(notebook, "01_a", ADDRESS)


def test_file_is_as_jupyter_writes_it_and_is_written_once(notebook, tmp_path, monkeypatch, capsys):
    path = tmp_path / "notebooks" / "01_a.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert capsys.readouterr().out == "notebooks/01_a.ipynb: stamped\n"
    assert path.read_text() == nbformat.writes(nbformat.read(path, as_version=4)) + "\n"
    assert repository() in path.read_text()
    # What needs no stamp keeps its own layout.
    layout = json.dumps(json.loads(path.read_text()))
    path.write_text(layout)
    assert main([]) == 0
    assert capsys.readouterr().out == ""
    assert path.read_text() == layout
    assert [file.name for file in path.parent.iterdir()] == ["01_a.ipynb"]


def test_command_line_names_what_it_cannot_stamp(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "no notebooks in notebooks/" in capsys.readouterr().err
    (tmp_path / "a.ipynb").write_text(nbformat.writes(new_notebook()))
    bad_cell = nbformat.writes(new_notebook()).replace('"cells": []', '"cells": [{}]')
    for name, content in zip("bcde", ("[]", "x", '{"cells": []}', bad_cell), strict=True):
        (tmp_path / f"{name}.ipynb").write_text(content)
    assert main(["gone.ipynb", *(f"{name}.ipynb" for name in "abcde")]) == 1
    gone, empty, *unreadable = capsys.readouterr().err.splitlines()
    assert "No such file" in gone and "must have one code cell tagged" in empty
    assert all("can't be read as a notebook" in line for line in unreadable) and len(unreadable) == 4


def test_title_and_promise_are_plain_text():
    def of(source):
        return title_and_promise(new_notebook(cells=[new_markdown_cell(source)]), "stem")

    promised = of("# Two\n\n[![badge](x)](y)\n\n**All of it, *once*:** four photos.\n\nMore.")
    assert promised == ("Two", "All of it, once: four photos.")
    assert title_and_promise(new_notebook(), "stem") == of("text\n# Late") == ("stem", "")
    assert of("# Alone") == ("Alone", "")


def test_the_list_of_chapters_is_written_once(tmp_path):
    paths = [tmp_path / "notebooks" / f"0{k}_a.ipynb" for k in (1, 2)]
    paths[0].parent.mkdir()
    for path in paths:
        cells = [new_markdown_cell(f"# {path.stem}\n\n**A \\1 promise.**")]
        nbformat.write(new_notebook(cells=cells), path)
    marks = "# Read\n\n<!-- chapters, written by `make stamp` -->\n{}<!-- end -->\nmore\n"
    rows = "".join(f"| [0{k}_a](notebooks/0{k}_a.ipynb) | A \\1 promise. |\n" for k in (1, 2))
    written = marks.format("| chapter | |\n|---|---|\n" + rows)
    for old in ("", "old\n| rows |\n", written.split("-->\n")[1].split("<!--")[0]):
        assert with_chapters(marks.format(old), paths[0].parent) == written
    assert with_chapters("no marks", paths[0].parent) == "no marks"


def test_readme_lists_the_committed_chapters():
    readme = (ROOT / "README.md").read_text()
    assert readme == with_chapters(readme, ROOT / "notebooks")
    assert "](notebooks/00_start_here.ipynb)" in readme


@pytest.mark.parametrize("urls", ["", "Repository = 'https://gitlab.com/a/b'", f"Repository = '{ADDRESS}/'"])
def test_address_must_be_one_that_colab_opens(tmp_path, urls):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(f"[project]\n[project.urls]\n{urls}")
    with pytest.raises(ValueError, match="Repository = "):
        repository(pyproject)
    pyproject.write_text(f"[project]\n[project.urls]\nRepository = '{ADDRESS}'")
    assert repository(pyproject) == ADDRESS


@pytest.fixture
def start(monkeypatch):
    """start(ours, colab) runs the bootstrap cell: `ap`, and the pip commands, which install a stand-in."""
    commands = []

    def line_magic(name, line):
        commands.append(f"{name} {line}")
        if "git+" in line:
            monkeypatch.setitem(sys.modules, "antipure_lib", types.ModuleType("installed"))

    def start(ours, colab=True):
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setitem(sys.modules, "antipure_lib", ours)
        if ours is ...:
            monkeypatch.delitem(sys.modules, "antipure_lib")
        names = {"get_ipython": lambda: types.SimpleNamespace(run_line_magic=line_magic)}
        code = re.sub(r"%(\w+) (.*)", r"get_ipython().run_line_magic('\1', '\2')", BOOTSTRAP)
        exec(code.replace("{repository}", ADDRESS), names)
        return names["ap"], commands

    return start


def test_bootstrap_installs_on_colab_alone_and_upgrades_nothing(start):
    ours = types.ModuleType("antipure_lib")
    assert start(ours) == (ours, [])
    installed, commands = start(None)
    assert installed.__name__ == "installed"
    assert all(command.startswith("pip install --quiet --no-deps ") for command in commands)
    assert commands[-1].endswith(f" git+{ADDRESS}")


def test_bootstrap_says_what_is_missing(start, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="antipure_lib is missing: run `pip install -e"):
        start(None, colab=False)
    (tmp_path / "antipure_lib.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit, match="no_such_module is missing"):
        start(...)
