"""The committed notebooks: fit to be read, and able to run with other parameters.

With their own parameters nbval runs them: `make test` names notebooks/ beside tests/.
"""

from pathlib import Path

import nbformat
import pytest
from check_notebooks import check_notebook

from antipure_lib.walk import NotebookError, check_parameters, run_notebook

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# Other values than the notebook's own, and as little work as still runs every line.
PARAMETERS = {
    "00_start_here": {"SEED": 1, "STEPS": 3},
}


def by_name(path: Path) -> str:
    return path.stem


def test_every_notebook_has_other_parameters_here():
    assert [path.stem for path in NOTEBOOKS] == sorted(PARAMETERS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_is_fit_to_be_committed(path):
    assert check_notebook(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_unknown_parameter_is_refused(path):
    with pytest.raises(NotebookError, match=f"{path.name}: unknown parameter SEDE"):
        check_parameters(path, {"SEDE": 1})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_runs_with_other_parameters(path, tmp_path):
    parameters = PARAMETERS[path.stem]
    executed = nbformat.read(run_notebook(path, tmp_path, parameters, timeout=600), as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    injected = [cell for cell in code if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1
    assert all(f"{name} = {value!r}" in injected[0].source for name, value in parameters.items())
    assert (tmp_path / f"{path.stem}.html").stat().st_size > 0
