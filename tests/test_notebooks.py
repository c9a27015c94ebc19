"""The committed notebooks: fit to be read, and able to run with other parameters.

With their own parameters nbval runs them: `make test` names notebooks/ beside tests/.
"""

from pathlib import Path

import nbformat
import pytest
from check_notebooks import check_notebook

from antipure_lib.walk import NotebookError, check_parameters, run_notebook

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# Other values than the notebook's own, and as little work as still runs every line.
PARAMETERS = {
    "00_start_here": {"SEED": 1, "STEPS": 3, "ITERATIONS": 1, "LEARNING": 2, "SAMPLES": 2},
    "01_diffusion_basics": {"SEED": 1, "ETA": 16, "STEPS": 20, "TOY_STEPS": 1000, "IDENTITY": "p02"},
    "02_customization": {"SEED": 1, "IDENTITY": "p02", "DREAMBOOTH": 2, "LORA": 4, "RANK": 4},
    "03_protective_perturbations": {
        "SEED": 1,
        "ETA": 8,
        "STEPS": 2,
        "LEARNING": 2,
        "PROTECTION": "advdm",
        "IDENTITY": "p02",
    },
    "04_purification": {
        "SEED": 1,
        "ETA": 8,
        "STEPS": 2,
        "T_MAX": 10,
        "ITERATIONS": 1,
        "LEARNING": 2,
        "SAMPLES": 2,
        "PROTECTION": "advdm",
    },
    "05_anti_purification": {
        "FAST": False,
        "SEED": 1,
        "ETA": 8,
        "STEPS": 1,
        "TRAINING": 1,
        "ITERATIONS": 1,
        "IDENTITY": "p02",
    },
    "06_patch_frequency_guidance": {
        "SEED": 1,
        "ETA": 8,
        "STEPS": 3,
        "PATCH": 4,
        "ITERATIONS": 1,
    },
    "07_erroneous_timestep_guidance": {
        "SEED": 1,
        "ETA": 8,
        "STEPS": 3,
        "ITERATIONS": 1,
        "T_ERR": 300,
        "IDENTITY": "p02",
    },
    "08_antipure": {
        "FAST": False,
        "SEED": 1,
        "ETA": 8,
        "STEPS": 1,
        "LAMBDA": 0.3,
        "PATCH": 4,
        "T_ERR": 300,
        "MOMENTUM": 0.0,
        "ITERATIONS": 1,
        "IDENTITY": "p02",
    },
    "09_benchmark": {"SEED": 1, "IDENTITY": "p02", "LEARNING": 2, "SAMPLES": 2, "STEPS": 2},
    "10_limits": {
        "SEED": 1,
        "ETA": 8,
        "STEPS": 1,
        "ITERATIONS": 1,
        "QUALITY": 50,
        "IDENTITY": "p02",
    },
    "11_full_scale": {
        "FAST": False,
        "SEED": 1,
        "SIZE": 48,
        "ETA": 4,
        "STEPS": 1,
        "ITERATIONS": 1,
        "LEARNING": 1,
        "SAMPLES": 1,
        "IDENTITY": "p02",
    },
}


def test_every_notebook_has_other_parameters_here():
    assert sorted(PARAMETERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_fit_to_be_committed(name):
    assert check_notebook(FOLDER / f"{name}.ipynb") == []


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameter_is_refused(name):
    with pytest.raises(NotebookError, match=f"{name}.ipynb: unknown parameter SEDE; the known ones are"):
        check_parameters(FOLDER / f"{name}.ipynb", {"SEDE": 1})


@pytest.mark.parametrize("name", NAMES[1:])  # test_colab.py and test_browser.py run the first
def test_runs_with_other_parameters(name, tmp_path):
    executed = run_notebook(FOLDER / f"{name}.ipynb", tmp_path, PARAMETERS[name], timeout=600)
    code = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    injected = [cell for cell in code if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1
    values = {}
    exec(injected[0].source, values)  # plain literals
    assert PARAMETERS[name].items() <= values.items()
    assert executed.with_suffix(".html").stat().st_size > 0
