"""tools/notebooks/check.py: a good notebook passes, and each rule refuses one that breaks it alone."""

import copy
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.notebooks.check import MAX_BYTES, MAX_CHECK_LINES, MAX_LINES, check_notebook, main
from tools.notebooks.stamp import BOOTSTRAP, badge, repository

ROOT = Path(__file__).parents[2]


def markdown(source, **more):
    return {"cell_type": "markdown", "id": f"m{abs(hash(source))}", "metadata": {}, "source": source, **more}


def code(count, source, outputs=(), tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    cell = {"cell_type": "code", "id": f"c{count}", "execution_count": count, "metadata": metadata}
    return {**cell, "source": source, "outputs": list(outputs)}


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def picture(kind="image/png"):
    return {"output_type": "display_data", "metadata": {}, "data": {kind: "eA==", "text/plain": ["<Figure>"]}}


TABLE = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": "| a |", "text/plain": "x"}}
WIDGET = "application/vnd.jupyter.widget-view+json"
GOOD = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "quick": {"SEED": 1},
    },
    "cells": [
        markdown(
            f"# Title\n\n{badge('01_a', repository())}\n\n"
            "[![Badge](https://x.org/b.svg)](https://x.org) ![a face](face.png)\n"
            "<img src='face.png' alt='a face'> [web](https://x.org/a_(b)) [next](02_b.ipynb)\n"
            "[part](02_b.ipynb#Part) [here](#Title) `f[i](x)` $E[f](x)$"
        ),
        code(1, BOOTSTRAP.replace("{repository}", repository()), tags=["bootstrap", "setup"]),
        code(2, "SEED = 0", tags=["parameters", "setup"]),
        code(3, ["line\n"] * MAX_LINES, [stream(["a/b: 8/255, and/or, ~/tmp/x, https://x.org/tmp/a\n"])]),
        code(4, "x", [picture(), stream(["text\n"]), picture("image/svg+xml"), TABLE, picture(WIDGET)]),
        markdown("### Exercise 1 · Double · easy"),
        code(5, "def f(x):\n    # solution\n    return 2 * x\n    # end of solution", tags=["exercise"]),
        code(6, "assert f(1) == 2, 'twice 1 is 2'", tags=["check"]),
    ],
}


@pytest.fixture
def check(tmp_path):
    folder = tmp_path / "notebooks"
    for file in (folder / "02_b.ipynb", folder / "face.png", tmp_path / "build" / "x.png"):
        file.parent.mkdir(exist_ok=True)
        file.touch()

    def check(notebook) -> list[str]:
        path = folder / "01_a.ipynb"
        path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook))
        try:
            return list(check_notebook(path))
        except ValueError as error:
            return [str(error)]

    return check


def test_good_notebook_passes(check):
    assert check(GOOD) == []


def test_a_check_s_asserts_may_say_what_is_wrong_in_any_of_their_ways(check):
    notebook = copy.deepcopy(GOOD)
    lines = ["close(f(1), 2, msg='x')", "np.testing.assert_allclose(f(1), 2, err_msg='x')", "assert f, 'x'"]
    lines += ["#"] * (MAX_CHECK_LINES - len(lines))  # a check may be longer than other cells
    notebook["cells"][7]["source"] = "\n".join(lines)
    assert check(notebook) == []


def set_in(*keys, to):
    """A change of GOOD: notebook[key0][key1]… = to."""

    def change(notebook):
        for key in keys[:-1]:
            notebook = notebook[key]
        notebook[keys[-1]] = to

    return change


def add(cell):
    return lambda notebook: notebook["cells"].append(cell)


def old_format(notebook):
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        del cell["id"]


def again(notebook):
    _, exercise, check = notebook["cells"][-3:]
    other = markdown("### Exercise 2 · Halve · easy")
    notebook["cells"] += [
        other,
        *(code(k, c["source"], tags=c["metadata"]["tags"]) for k, c in ((7, exercise), (8, check))),
    ]


def shown(html):
    return TABLE | {"data": {"text/html": [html]}}


ERROR_OUTPUT = {"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": ["x"]}
BROKEN = {
    "other kernel": (set_in("metadata", "kernelspec", "name", to="my-env"), "names the kernel my-env"),
    "no kernel": (lambda n: n["metadata"].pop("kernelspec"), "names the kernel None"),
    "no quick values": (set_in("metadata", "quick", to={}), "no values for a quick run"),
    "old format": (old_format, "older than nbformat 4.5"),
    "no id": (lambda n: n["cells"][0].pop("id"), "can't be read as a notebook (Cell is missing an id"),
    "shared id": (set_in("cells", 2, "id", to="c1"), "can't be read as a notebook (Non-unique cell id"),
    "not run": (set_in("cells", 2, "execution_count", to=None), "top to bottom"),
    "run twice": (set_in("cells", 2, "execution_count", to=3), "top to bottom"),
    "out of order": (lambda n: n["cells"].insert(2, code(7, "x")), "top to bottom"),
    "repeated exercise": (again, "two exercises with the same code"),
    "too large": (add(code(7, "x", [stream("y" * MAX_BYTES)])), "1 MB is the limit"),
    "widget state": (set_in("metadata", "widgets", to={}), "widget state"),
    "error": (add(code(7, "x", [ERROR_OUTPUT])), "cell 9 shows an error (ValueError)"),
    "no parameters": (set_in("cells", 2, "metadata", to={}), "0 code cells tagged"),
    "two parameters": (add(code(7, "x", tags=["parameters"])), "2 code cells tagged"),
    "no title": (set_in("cells", 0, "source", to="Title"), "whose first line is the title"),
    "no badge": (set_in("cells", 0, "source", to="# Title"), "cell 1 has a missing or stale Colab badge"),
    "another's badge": (
        set_in("cells", 0, "source", to=f"# Title\n\n{badge('02_b', repository())}"),
        "cell 1 has a missing or stale Colab badge",
    ),
    "stale bootstrap": (set_in("cells", 1, "source", to="x"), "cell 2 has a missing or stale bootstrap"),
    "no bootstrap": (set_in("cells", 1, "metadata", to={}), "one code cell tagged 'bootstrap'"),
    "second bootstrap": (add(code(7, "x", tags=["bootstrap"])), "one code cell tagged 'bootstrap'"),
    "bad exercise": (set_in("cells", 7, "metadata", to={}), "exercise 1 has no cell tagged 'check'"),
    "figure alone": (add(code(7, "x", [picture()])), "cell 9 shows a figure and no text after it"),
    "text before a figure": (add(code(7, "x", [stream("y"), picture()])), "a figure and no text after it"),
    "text before the last": (add(code(7, "x", [picture(), TABLE, picture()])), "a figure and no text"),
    "warning after a figure": (
        add(code(7, "x", [picture(), stream("y") | {"name": "stderr"}])),
        "a figure and no text after it",
    ),
    "widget after a figure": (add(code(7, "x", [picture(), picture(WIDGET)])), "a figure and no text"),
    "figure in HTML": (
        add(code(7, "x", [shown("<div><img src='data:image/png;base64,eA=='>")])),
        "a figure and no text after it",
    ),
    "no alt": (add(markdown("![](face.png)")), "cell 9 has a picture without alt text (face.png)"),
    "blank alt": (add(markdown("![ ](face.png)")), "without alt text"),
    "no alt in a link": (add(markdown("[![](face.png)](https://x.org)")), "without alt text"),
    "no alt in HTML": (add(markdown("<img src='face.png'>")), "without alt text"),
    "assert without a message": (
        set_in("cells", 7, "source", to="assert f(1) == 2, 'twice 1 is 2'\nassert f(2) == 4"),
        "cell 8 has an assert without a message (line 2)",
    ),
    "assert_close without a message": (
        set_in("cells", 7, "source", to="torch.testing.assert_close(f(1), 2, rtol=0)"),
        "cell 8 has an assert without a message (line 1)",
    ),
    "open and no rubric": (
        set_in("cells", 5, "source", to="### Exercise 1 · Double · open"),
        "exercise 1 has no rubric at the end of its text",
    ),
    "long check": (
        set_in("cells", 7, "source", to="assert f, 'x'" + "\n#" * MAX_CHECK_LINES),
        "cell 8 has 31 lines of code",
    ),
    "long cell": (add(code(7, ["line\n"] * (MAX_LINES + 1))), "cell 9 has 16 lines of code"),
    "path in code": (add(code(7, "open('/home/me/x')")), "cell 9 names a path of one machine (/home/me)"),
    "path in text": (add(markdown("see /tmp/x.png")), "path of one machine"),
    "path in output": (add(code(7, "x", [stream("/root/lib/a.py:1: Warning\n")])), "path of one machine"),
    "path in HTML output": (add(code(7, "x", [shown("<a href='/root/x.png'>")])), "path of one machine"),
    "Windows path": (add(code(7, r"open('C:\\Users\\me')")), "path of one machine"),
    "dead link": (add(markdown("[x](gone.ipynb#Part)")), "cell 9 links to gone.ipynb, which isn't"),
    "dead HTML link": (add(markdown("<a href='gone.png'>x</a>")), "links to gone.png"),
    "absolute link": (add(markdown("[x](/etc)")), "links to /etc"),
    "link out of the repository": (add(markdown("[x](../..)")), "links to ../.., which isn't"),
    "link to what is built": (add(markdown("![x](../build/x.png)")), "links to ../build/x.png, which isn't"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_alone(check, name):
    change, message = BROKEN[name]
    notebook = copy.deepcopy(GOOD)
    change(notebook)
    problems = check(notebook)
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not json", '{"metadata": {}, "cells": [{}]}', '{"cells": 3}']
)
def test_unreadable_notebook_is_a_problem(check, text):
    assert "can't be read as a notebook" in check(text)[-1]


def test_command_line(check, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / "build")
    assert main([]) == 1
    assert "no notebooks" in capsys.readouterr().err
    check(GOOD)
    assert main(["../notebooks/01_a.ipynb"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["../notebooks/01_a.ipynb", "gone.ipynb"]) == 1
    assert "gone.ipynb: [Errno 2] No such file" in capsys.readouterr().err


def test_nbstripout_of_the_commit_hook_keeps_what_is_checked(check, tmp_path):
    notebook = copy.deepcopy(GOOD)
    notebook["metadata"]["widgets"] = {"state": {}}
    assert check(notebook)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entry = next(hook["entry"] for hook in hooks if hook["id"] == "nbstripout")
    command = [sys.executable, *shlex.split(entry)[1:], "notebooks/01_a.ipynb"]
    subprocess.run(command, cwd=tmp_path, check=True)
    stripped = (tmp_path / "notebooks" / "01_a.ipynb").read_text()
    assert check(stripped) == []
    assert [cell["id"] for cell in json.loads(stripped)["cells"]] == [cell["id"] for cell in GOOD["cells"]]
    assert "8/255, and/or" in stripped
