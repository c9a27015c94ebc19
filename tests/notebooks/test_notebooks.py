"""The committed notebooks: fit to be read, and able to run with other parameters.

With their own parameters nbval runs them: `make test` names notebooks/ beside tests/.
"""

import nbformat
import papermill
import pytest
from committed import FOLDER, NAMES, quick

from tools.notebooks.check import check_notebook
from tools.notebooks.walk import NotebookError, check_parameters, parse_value, run_notebook


@pytest.mark.parametrize("name", NAMES)
def test_quick_values_are_other_values(name):
    known = papermill.inspect_notebook(FOLDER / f"{name}.ipynb")
    own = {key: parse_value(known[key]["default"]) for key in quick(name)}
    assert quick(name) and not (own.items() & quick(name).items())


@pytest.mark.parametrize("name", NAMES)
def test_is_fit_to_be_committed(name):
    assert check_notebook(FOLDER / f"{name}.ipynb") == []


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameter_is_refused(name):
    with pytest.raises(NotebookError, match=f"{name}.ipynb: unknown parameter SEDE; the known ones are"):
        check_parameters(FOLDER / f"{name}.ipynb", {"SEDE": 1})


@pytest.mark.parametrize("name", NAMES[1:])  # test_colab.py and test_browser.py run the first
def test_runs_with_other_parameters(name, tmp_path):
    executed = run_notebook(FOLDER / f"{name}.ipynb", tmp_path, quick(name), timeout=600)
    code = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    injected = [cell for cell in code if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1
    values = {}
    exec(injected[0].source, values)  # plain literals
    assert quick(name).items() <= values.items()
    assert executed.with_suffix(".html").stat().st_size > 0
