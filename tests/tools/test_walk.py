"""`python -m tools.notebooks.walk`, on notebooks made on the spot."""

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks.pages import add_mathjax, minutes, title_and_promise, to_html
from tools.notebooks.walk import NotebookError, check_parameters, main, parse_value, run_notebook, walk

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
PARAMETERS = "SEED = 0  # of everything\nETA = 8 / 255\nIDENTITY = 'p01'"

LINKS = "[next](b.ipynb), [d](../d.txt)"


@pytest.fixture
def make(tmp_path):
    """make("a", code, …) writes notebooks/a.ipynb: a title, a parameters cell, then these code cells."""

    def make(name: str, *code: str) -> Path:
        text = f"# The {name} & more\n\n[![Badge](x.svg)](y)\n\n**You see {name}.**\n\n{LINKS}"
        cells = [new_markdown_cell(text), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells + [new_code_cell(c) for c in code], metadata=KERNEL), path)
        return path

    return make


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs)


def test_walk_executes_in_order_and_links_the_pages(make, tmp_path, monkeypatch, capsys):
    make("b", "print('seed', SEED, 'in', __import__('os').getcwd())")
    make("a", "print('eta', ETA, IDENTITY)")
    (tmp_path / "d.txt").write_text("d")
    monkeypatch.chdir(tmp_path)
    words = ["--at-once", "1", "-p", "ETA", "16/255", "-p", "SEED", "7", "-p", "IDENTITY", "p02"]
    assert main(words) == 0

    out = tmp_path / "build" / "walk"
    assert sorted(file.name for file in out.iterdir()) == [
        "a.html",
        "a.ipynb",
        "b.html",
        "b.ipynb",
        "index.html",
        "mathjax",
    ]
    assert outputs(out / "a.ipynb") == f"eta {16 / 255} p02\n"
    assert outputs(out / "b.ipynb") == f"seed 7 in {tmp_path / 'notebooks'}\n"
    index = (out / "index.html").read_text()
    assert '<a href="a.html">The a &amp; more</a></td><td>You see a. ' in index
    assert "SEED = 7." in index
    assert index.index('href="a.html"') < index.index('href="b.html"')
    page = (out / "a.html").read_text()
    assert f"eta {16 / 255} p02" in page
    assert '<a href="b.html">next</a>' in page
    assert '<a href="../../d.txt">d</a>' in page
    assert 'src="mathjax/MathJax.js?' in page and (out / "mathjax/MathJax.js").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] notebooks/a.ipynb")
    assert "done in" in lines[-2] and lines[-2].startswith("[2/2] notebooks/b.ipynb")
    assert lines[-1] == f"Open {out / 'index.html'}"


def test_without_mathjax_s_package_pages_ask_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.notebooks.pages.find_spec", lambda name: None)
    page = to_html(new_notebook(), tmp_path / "a.ipynb", tmp_path)
    assert re.search(r'src="https://[^"]*MathJax\.js|src="https://[^"]*mathjax/', page)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [True, False])
def test_mathjax_is_copied_by_one_process_alone(tmp_path, monkeypatch, first):
    def rename(whole, target):
        if first:  # another process's copy arrives meanwhile
            target.mkdir()
        raise OSError("no")

    pytest.importorskip("jupyter_server_mathjax")
    monkeypatch.setattr("tools.notebooks.pages.os.rename", rename)
    with nullcontext() if first else pytest.raises(OSError, match="no"):
        assert add_mathjax(tmp_path)["mathjax_url"].startswith("mathjax/")
    assert [file.name for file in tmp_path.iterdir()] == ["mathjax"] * first


def test_failing_cell_is_named_and_leaves_nothing_behind(make, tmp_path, capsys):
    good, bad = make("a", "print(1)"), make("b", "x = 1\nprint(x)", "\ny = x / 0\n", "print('never')")
    assert main([str(good), str(bad), "--at-once", "1", "--out", str(tmp_path / "out")]) == 1
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "a.html",
        "a.ipynb",
        "index.html",
        "mathjax",
    ]
    error = capsys.readouterr().err
    assert f"error: {bad}: code cell 3 (y = x / 0) failed with ZeroDivisionError: division by zero" in error
    assert "\x1b" not in error.partition("error: ")[2]


def test_notebooks_side_by_side(make, tmp_path, capsys):
    """Each waits for the other's file: neither could end if they ran one after the other."""
    wait = (
        "import time, pathlib\npathlib.Path('{}').touch()\n"
        "while not pathlib.Path('{}').exists(): time.sleep(0.1)"
    )
    pair = [make("a", wait.format("one", "two"), "print('eta', ETA)"), make("b", wait.format("two", "one"))]
    index = walk(pair, tmp_path / "out", {"ETA": 0.5}, timeout=120, at_once=2)
    assert outputs(tmp_path / "out" / "a.ipynb") == "eta 0.5\n"
    assert index.read_text().index('href="a.html"') < index.read_text().index('href="b.html"')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(" done in " in line for line in lines[1:])


def test_a_failure_side_by_side_is_named_and_ends_the_walk(make, tmp_path):
    names = [make("a", "x = 1 / 0"), make("b", "print(1)"), *(make(f"c{k}", "print(2)") for k in range(6))]
    with pytest.raises(
        NotebookError, match=r"a\.ipynb: code cell 2 \(x = 1 / 0\) failed with ZeroDivisionError"
    ):
        walk(names, tmp_path / "out", at_once=2)
    assert not (tmp_path / "out" / "c5.ipynb").exists()


def test_cell_that_takes_too_long_is_named(make, tmp_path):
    slow = make("slow", "import time", "time.sleep(60)")
    with pytest.raises(
        NotebookError, match=r"slow\.ipynb: code cell 3 \(time\.sleep\(60\)\) took longer than 2 s"
    ):
        run_notebook(slow, tmp_path / "out", timeout=2)
    assert list((tmp_path / "out").iterdir()) == []


def test_kernel_that_does_not_start_is_named(make, tmp_path, monkeypatch):
    def too_slow(*_, **options):
        raise RuntimeError(f"Kernel didn't respond in {options['start_timeout']} seconds")

    monkeypatch.setattr("papermill.execute_notebook", too_slow)
    with pytest.raises(
        NotebookError, match=r"a\.ipynb: Kernel didn't respond in 300 seconds; is ipykernel installed"
    ):
        run_notebook(make("a", "print(1)"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_results_that_cannot_be_written_are_told_in_one_line(make, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(make("a", "print(1)")), "--out", str(tmp_path / "file")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "file") in line


def test_dead_kernel_is_named(make, tmp_path):
    deadly = make("deadly", "import os", "os._exit(1)")
    with pytest.raises(
        NotebookError, match=r"deadly\.ipynb: code cell 3 \(os\._exit\(1\)\) ended the kernel"
    ):
        run_notebook(deadly, tmp_path / "out")


def test_unknown_parameter_is_refused_before_anything_runs(make, tmp_path):
    notebooks = [make("a", "print(1)"), make("b", "print(2)")]
    with pytest.raises(NotebookError, match=r"a\.ipynb: unknown parameter SEEDS; .* are SEED, ETA, IDENTITY"):
        walk(notebooks, tmp_path / "out", {"SEEDS": 1})
    assert not (tmp_path / "out").exists()


def test_text_in_place_of_a_number_is_refused(make):
    notebook = make("a")
    with pytest.raises(NotebookError, match="parameter ETA can't be 'big'"):
        check_parameters(notebook, {"ETA": "big"})
    check_parameters(notebook, {"ETA": 0.1, "IDENTITY": "p07"})


def test_notebook_without_parameters_cell_says_so(tmp_path):
    path = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(1)")], metadata=KERNEL), path)
    with pytest.raises(NotebookError, match="no cell is tagged 'parameters'"):
        check_parameters(path, {"SEED": 1})


def test_notebook_without_a_kernel_says_so(tmp_path):
    path = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(1)")]), path)
    check_parameters(path, {})
    with pytest.raises(NotebookError, match="names no kernel; open it in Jupyter"):
        check_parameters(path, {"SEED": 1})


@pytest.mark.parametrize("content", [None, "", "not json", "[]"])
def test_what_is_not_a_notebook_is_named(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    if content is not None:
        path.write_text(content)
    for parameters in ({}, {"SEED": 1}):
        with pytest.raises(NotebookError, match=r"broken\.ipynb"):
            check_parameters(path, parameters)


def test_source_is_never_overwritten(make):
    notebook = make("a", "print(1)")
    before = notebook.read_bytes()
    with pytest.raises(NotebookError, match="overwrite"):
        run_notebook(notebook, notebook.parent)
    assert notebook.read_bytes() == before


def test_no_notebooks_and_bad_timeout_are_plain_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "no notebook in" in capsys.readouterr().err
    for option in ("--timeout", "--at-once"):
        assert main([option, "0"]) == 1
        assert f"{option} must be 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("False", False), ("None", None), ("'p02'", "p02"), ("p02", "p02")]
    + [("8/255", 8 / 255), ("8 / 255", 8 / 255), ("1/0", "1/0"), ("", ""), ("[1, 2]", [1, 2])],
)
def test_parameter_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_untitled_notebook_goes_by_its_name():
    assert title_and_promise(new_notebook(), "stem") == ("stem", "")
    assert title_and_promise(new_notebook(cells=[new_markdown_cell("text\n# Late")]), "stem") == ("stem", "")
    assert title_and_promise(new_notebook(cells=[new_markdown_cell("# Alone")]), "stem") == ("Alone", "")


def test_promise_is_plain_text():
    source = "# Two\n\n[![badge](x)](y)\n\n**All of it, *once*:** four photos."
    notebook = new_notebook(cells=[new_markdown_cell(source)])
    assert title_and_promise(notebook, "stem") == ("Two", "All of it, once: four photos.")


def test_minutes():
    assert [minutes(s) for s in (0.4, 59.4, 59.6, 75.4, 3600)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "1 min 15 s",
        "60 min 00 s",
    ]


def test_command_line_does_without_torch():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['antipure_lib', '--help']\n"
        "try: runpy.run_module('antipure_lib', run_name='__main__')\n"
        "except SystemExit: print(*sorted({'torch', 'papermill', 'nbconvert', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "benchmark" in done.stdout
    assert done.stdout.splitlines()[-1] == ""  # none of them
