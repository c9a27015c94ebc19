"""Colab as it is: a notebook alone in an empty folder, which brings its package and leaves the others alone.

A second environment sees this one's packages as Colab's own, but for the notebooks' package itself, and has
Colab's old ipywidgets. Git is told to take the repository's address for this checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from committed import quick

from tools.notebooks.stamp import repository

ROOT = Path(__file__).parents[2]
WIDGETS = ("ipywidgets==7.7.1", "ipython-genutils==0.2.0")  # what Colab has had for years
RUN = """
import json, sys, papermill
papermill.execute_notebook(*sys.argv[1:3], json.loads(sys.argv[3]), cwd=".")
"""


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """The Python of an environment like Colab's."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    # Links, one by one: pip, which may write into this environment alone, doesn't find the editable install.
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"_?(antipure|ipywidgets)", package.name):
            (site / package.name).symlink_to(package)
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "zz_colab.pth").write_text("import google.colab\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *WIDGETS]
    if subprocess.run(pip).returncode:
        pytest.skip(f"no package index here to install {' '.join(WIDGETS)} from")
    return python


def packages(python: Path) -> set[str]:
    """Every installed package with its version, as name-version."""
    return {info.stem for info in python.parents[1].glob("lib/python*/site-packages/*.dist-info")}


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git checkout")
def test_notebook_00_runs_alone_where_the_package_comes_over_git(colab, tmp_path):
    notebook = tmp_path / "00_start_here.ipynb"
    shutil.copy(ROOT / "notebooks" / notebook.name, notebook)
    here = {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository(),
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
    }
    before = packages(colab)
    assert "ipywidgets-7.7.1" in before and not any(name.startswith("antipure") for name in before)
    done = subprocess.run(
        [colab, "-c", RUN, notebook.name, "executed.ipynb", json.dumps(quick("00_start_here"))],
        cwd=tmp_path,
        env=os.environ | here,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    new = packages(colab) ^ before
    assert {name.partition("-")[0] for name in new} == {"antipure_notebooks"}
    where = [colab, "-c", "import antipure_lib; print(antipure_lib.__file__)"]
    file = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert Path(file).is_relative_to(colab.parent.parent)
