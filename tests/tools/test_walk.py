"""`python -m tools.notebooks.walk`, on notebooks made on the spot."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks import walk as walk_module
from tools.notebooks.stamp import repository
from tools.notebooks.walk import NotebookError, check, main, minutes, run_notebook, walk
from tools.site import build

PARAMETERS = "SEED = 0  # of everything\nETA = 8 / 255\nIDENTITY = 'p01'"
LINKS = "[next](b.ipynb), [licence](../LICENSE)"


@pytest.fixture
def make(tmp_path):
    """make("a", code, …) writes notebooks/a.ipynb: a title, a parameters cell, then these code cells."""

    def make(name: str, *code: str) -> Path:
        text = f"# The {name} & more\n\n[![Badge](x.svg)](y)\n\n**You see {name}.**\n\n{LINKS}"
        cells = [new_markdown_cell(text), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells + [new_code_cell(c) for c in code]), path)
        return path

    return make


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_walk_executes_in_order_and_ends_in_the_site_of_its_run(make, tmp_path, monkeypatch, capfd):
    make("b", "print('seed', SEED, 'in', __import__('os').getcwd())")
    make("a", "print('eta', ETA, IDENTITY)", "__import__('os').system('echo noise >&2');")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "TEXTS", ())  # without documents and reference the site takes less time
    monkeypatch.setattr(build.api, "pages", dict)
    words = ["--at-once", "1", "-p", "ETA", "16/255", "-p", "SEED", "7", "-p", "IDENTITY", "p02"]
    assert main(words) == 0

    out = tmp_path / "build" / "walk"
    assert names(out) == ["a.ipynb", "b.ipynb", "site", "walk.log"]
    assert outputs(out / "a.ipynb").startswith(f"eta {16 / 255} p02\n")
    assert outputs(out / "b.ipynb") == f"seed 7 in {tmp_path / 'notebooks'}\n"
    index = (out / "site/index.html").read_text()
    assert index.index('href="notebooks/a.html"') < index.index('href="notebooks/b.html"')
    page = (out / "site/notebooks/a.html").read_text()
    assert f"eta {16 / 255} p02" in page
    assert 'href="b.html"' in page and f'href="{repository()}/blob/main/LICENSE"' in page
    printed, errors = capfd.readouterr()
    first, *stages, last = printed.splitlines()
    assert first == "2 notebooks, 1 at once; log: build/walk/walk.log"
    told = [line.partition(" after")[0] for line in stages]
    assert told == ["[1/2] build/walk/a.ipynb", "[2/2] build/walk/b.ipynb", "the site of them ..."]
    assert last == f"Open {out / 'site/index.html'}" and errors == ""
    assert "Executing" in (out / "walk.log").read_text()


def test_failing_cell_is_named_and_leaves_nothing_behind(make, tmp_path, capfd):
    good, bad = make("a", "print(1)"), make("b", "x = 1\nprint(x)", "\ny = x / 0\n", "print('never')")
    out = tmp_path / "out"
    assert main([str(good), str(bad), "--at-once", "1", "--out", str(out)]) == 1
    assert names(out) == ["a.ipynb", "walk.log"]
    error = capfd.readouterr().err
    assert error.startswith(f"error: {bad}: code cell 3 (y = x / 0) failed with ZeroDivisionError: division")
    assert "\x1b" not in error
    assert error.splitlines()[-1] == f"The full log is {out / 'walk.log'}."


def test_notebooks_side_by_side(make, tmp_path, monkeypatch, capsys):
    """Each waits for the other's file: neither could end if they ran one after the other."""
    wait = (
        "import time, pathlib\npathlib.Path('{}').touch()\n"
        "while not pathlib.Path('{}').exists(): time.sleep(0.1)"
    )
    pair = [make("a", wait.format("one", "two"), "print('eta', ETA)"), make("b", wait.format("two", "one"))]
    monkeypatch.setattr(walk_module, "build_site", lambda chapters, *_, **__: names(chapters))
    done = walk(pair, tmp_path / "out", {"ETA": 0.5}, timeout=120, at_once=2)
    assert outputs(tmp_path / "out" / "a.ipynb") == "eta 0.5\n"
    assert done == ["a.ipynb", "b.ipynb", "walk.log"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(" after " in line for line in lines[1:3])


def test_a_failure_side_by_side_is_named_and_ends_the_walk(make, tmp_path):
    """b waits for a's file: a has begun before any other notebook ends."""
    start = "import pathlib\npathlib.Path('a').touch()"
    wait = "import pathlib\nwhile not pathlib.Path('a').exists(): pass"
    paths = [make("a", start, "x = 1 / 0"), make("b", wait), *(make(f"c{k}", "print(2)") for k in range(6))]
    with pytest.raises(NotebookError, match=r"a\.ipynb: code cell 3 \(x = 1 / 0\) failed with ZeroDivision"):
        walk(paths, tmp_path / "out", at_once=2)
    assert not (tmp_path / "out" / "c5.ipynb").exists()


def test_cell_that_takes_too_long_is_named_and_nothing_else_is_printed(make, tmp_path, capfd):
    slow, out = make("slow", "x = 1", "while True: pass"), tmp_path / "out"
    assert main([str(slow), "--timeout", "2", "--out", str(out)]) == 1
    assert capfd.readouterr().err.splitlines() == [
        f"error: {slow}: code cell 3 (while True: pass) took longer than 2 s; allow more (--timeout)",
        f"The full log is {out / 'walk.log'}.",
    ]
    assert names(out) == ["walk.log"]


def test_kernel_that_does_not_start_is_named(make, tmp_path, monkeypatch):
    def too_slow(*_, **options):
        raise RuntimeError(f"Kernel didn't respond in {options['start_timeout']} seconds")

    monkeypatch.setattr("papermill.execute_notebook", too_slow)
    with pytest.raises(NotebookError, match=r"a\.ipynb: Kernel didn't respond in 300 .*; is ipykernel inst"):
        run_notebook(make("a", "print(1)"), tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_dead_kernel_is_named(make, tmp_path):
    deadly = make("deadly", "import os", "os._exit(1)")
    with pytest.raises(NotebookError, match=r"deadly\.ipynb: code cell 3 \(os.* ended the kernel"):
        run_notebook(deadly, tmp_path / "out")


def test_results_that_cannot_be_written_make_one_line(make, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main([str(make("a", "print(1)")), "--out", str(tmp_path / "file")]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(tmp_path / "file") in line


def test_a_wrong_parameter_is_refused_before_anything_runs(make, tmp_path):
    notebooks, out = [make("a", "print(1)"), make("b", "print(2)")], tmp_path / "out"
    with pytest.raises(NotebookError, match=r"a\.ipynb: unknown parameter SEEDS; .* are SEED, ETA, IDENTITY"):
        walk(notebooks, out, {"SEEDS": 1})
    with pytest.raises(NotebookError, match=r"a\.ipynb: parameter ETA can't be 'big'; it takes a number"):
        walk(notebooks, out, {"ETA": "big"})
    assert not out.exists()


@pytest.mark.parametrize("content", [None, "", "not json", "[]"])
def test_what_is_not_a_notebook_is_named(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NotebookError, match=r"broken\.ipynb"):
        check(path, tmp_path / "out", {})


def test_source_is_never_overwritten(make):
    notebook = make("a", "print(1)")
    before = notebook.read_bytes()
    with pytest.raises(NotebookError, match="overwrite"):
        walk([notebook], notebook.parent)
    assert notebook.read_bytes() == before and names(notebook.parent) == ["a.ipynb"]


def test_no_notebooks_and_bad_numbers_are_plain_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "no notebook in" in capsys.readouterr().err
    for option in ("--timeout", "--at-once"):
        assert main([option, "0"]) == 1
        assert f"{option} must be 1 or more, got 0" in capsys.readouterr().err


def test_the_help_s_example_is_one_that_the_chapters_take(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    name, value = re.search(r"-p (\w+) (\S+) is", " ".join(capsys.readouterr().out.split())).groups()
    for path in sorted(Path(__file__).parents[2].glob("notebooks/0[0345678]*.ipynb")):
        assert check(path, Path("elsewhere"), {name: value}) == {"ETA": 16}
        with pytest.raises(NotebookError, match="takes a whole number, see `ETA = .* in steps of 1/255"):
            check(path, Path("elsewhere"), {name: "16/255"})


def test_minutes():
    told = [minutes(seconds) for seconds in (0.4, 59.4, 59.6, 75.4, 3600)]
    assert told == ["0 s", "59 s", "1 min 00 s", "1 min 15 s", "60 min 00 s"]
