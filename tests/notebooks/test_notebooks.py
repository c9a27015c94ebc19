"""The committed notebooks: fit to be read, and able to run with other parameters.

With their own values nbval runs four of them (`make test`), and `make walk` all of them.
"""

import nbformat
import pytest
from committed import FOLDER, NAMES, quick

from tools.notebooks import walk
from tools.notebooks.check import check_notebook
from tools.notebooks.new import new_chapter
from tools.notebooks.parameters import new_values, parameters_of
from tools.notebooks.stamp import read_notebook


def test_a_new_chapter_is_fit_and_runs_with_its_quick_values(tmp_path):
    (tmp_path / "notebooks").mkdir()
    path = new_chapter("12_my_own", tmp_path / "notebooks")
    assert list(check_notebook(path)) == []
    notebook = read_notebook(path)
    assert notebook.cells[0].source.startswith("# 12 · My own\n")
    own = {name: default for name, (default, _) in parameters_of(notebook).items()}
    executed = walk.run_notebook(path, tmp_path / "out", notebook.metadata.quick)
    assert not own.items() & notebook.metadata.quick.items()
    assert "up to 8/255" in str(notebook.cells) and "up to 4/255" in str(read_notebook(executed).cells)
    with pytest.raises(FileExistsError, match="12_my_own.ipynb: there is such a chapter already"):
        new_chapter("12_my_own", tmp_path / "notebooks")


@pytest.mark.parametrize("name", ["", "mine", "12", "1_a", "12_", "12_Mine", "12_a b", "12_../a", "12_a__b"])
def test_a_chapter_s_name_has_one_form(name, tmp_path):
    with pytest.raises(ValueError, match="two digits and words"):
        new_chapter(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_is_fit_to_be_committed(name):
    assert list(check_notebook(FOLDER / f"{name}.ipynb")) == []


@pytest.mark.parametrize("name", NAMES)
def test_quick_values_are_other_values(name):
    known = parameters_of(read_notebook(FOLDER / f"{name}.ipynb"))
    own = {key: known[key][0] for key in quick(name)}
    assert new_values(read_notebook(FOLDER / f"{name}.ipynb"), quick(name)) == quick(name)
    assert not (own.items() & quick(name).items())


@pytest.mark.parametrize("name", NAMES[1:])  # test_colab.py and test_browser.py run the first
def test_runs_with_other_parameters(name, tmp_path):
    executed = walk.run_notebook(FOLDER / f"{name}.ipynb", tmp_path, quick(name), timeout=600)
    code = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    (injected,) = [cell for cell in code if "injected-parameters" in cell.metadata.get("tags", [])]
    values = {}
    exec(injected.source, values)  # plain literals
    assert quick(name).items() <= values.items()
