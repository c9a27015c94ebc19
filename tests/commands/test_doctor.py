"""`doctor` finds what is there, and says what isn't."""

from importlib.metadata import version

import pytest

from antipure_lib.commands import doctor
from antipure_lib.models import checkpoints


def rows(lines):
    assert all(line[doctor.WIDTH - 1] == " " for line in lines)  # no name runs into what was found
    return {line[: doctor.WIDTH].strip(): line[doctor.WIDTH :] for line in lines}


def test_packages_models_and_a_step_are_found(run):
    status, lines, err = run("doctor", out=None)
    found = rows(lines)
    assert (status, err) == (0, [])
    assert {"torch", "pillow", "dlib-bin", "matplotlib", "ncnn", "tqdm"} < set(found)
    assert not {"pytest", "numba", "antipure-notebooks"} & set(found)  # what only its developers need
    assert found["torch"] == version("torch")
    assert found["--ddpm nano"].startswith("loads, 3.5 M") and found["--pipe nano"].startswith(
        "loads, 10.8 M"
    )
    assert "--download (of protect and purify) fetches it" in found["--ddpm ddpm-celebahq-256"]
    assert found["one step of protection"] == "changes a photo by 1/255"


def test_what_does_not_work_is_told(run, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "data_path", lambda *parts: tmp_path)
    status, lines, err = run("doctor", out=None)
    found = rows(lines)
    assert status == 1 and err == ["error: protection doesn't work here; see above"]
    assert "doesn't load" in found["--ddpm nano"] and "fails: " in found["one step of protection"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("no-such-package>=1.0", "missing; pip install no-such-package"),
        (
            'no-such.package[all]>=1; extra == "judge"',
            "missing; pip install no-such.package (only for judge)",
        ),
        ("no_such_package", "missing; pip install no_such_package"),
    ],
)
def test_a_missing_package_is_told(run, monkeypatch, line, told):
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2.6", line, 'pytest; extra == "test"'])
    monkeypatch.setattr(doctor, "_checks", lambda: [("device", "cpu", True)])
    status, lines, err = run("doctor", out=None)
    assert told in rows(lines).values() and status == ("extra" not in line)
    assert not err if status == 0 else " missing, nothing can work without" in err[0]
