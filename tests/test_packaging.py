"""The lists of requirements agree, and a wheel works where there is no checkout."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.release.floors import oldest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"pytorch": "torch"}
BY_HAND = {"bitsandbytes"}  # for CUDA only; the error message without it says how to install it
BARE_MODULES = {"dlib": ["dlib-bin"]}  # a module without Python files isn't in packages_distributions()


def floors(requirements: list[str]) -> dict[str, str]:
    """{name: specifier}, without the packages that an extra of this project brings."""
    parsed = [Requirement(requirement) for requirement in requirements]
    return {canonicalize_name(r.name): str(r.specifier) for r in parsed if r.name != PROJECT["name"]}


CORE = floors(PROJECT["dependencies"])
ALL = CORE | floors([requirement for extra in EXTRAS.values() for requirement in extra])


def test_all_has_every_extra():
    assert Requirement(EXTRAS["all"][0]).extras == set(EXTRAS) - {"all"}


def test_a_package_has_one_floor():
    lists = [CORE, *(floors(extra) for extra in EXTRAS.values())]
    assert all(ALL[name] == floor for requirements in lists for name, floor in requirements.items())
    assert all(re.fullmatch(r">=[\d.]+", floor) for floor in ALL.values())


def test_environment_agrees_with_pyproject():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {CONDA_NAMES.get(name, name): floor for name, floor in floors(conda).items()}
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    assert conda.items() <= ALL.items()
    # What pip would otherwise fetch a second build of.
    assert set(CORE) <= set(conda)
    assert pip == {"pip": ["-e .[all]"]}


@pytest.mark.parametrize(
    ("file", "requirement"),
    [
        ("pyproject.toml", r'  "[\w-]+(\[.*\])?>=.*"'),
        ("pyproject.toml", r'all = \["'),
        ("environment.yml", r" +- "),
    ],
)
def test_every_requirement_says_why(file, requirement):
    lines = [line for line in (ROOT / file).read_text().splitlines() if re.match(requirement, line)]
    lines = [line for line in lines if line.strip() != "- pip:"]
    assert lines
    assert [line for line in lines if not re.search(r" # [\w`].{5,}$", line)] == []


def test_lock_pins_what_pyproject_asks_for():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    versions = {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, pins, strict=True)}
    assert versions["torch"] == "2.13.0"
    assert not {"torchvision", "torchaudio"} & set(names)
    assert {name for name in ALL if name not in versions} == set()
    assert [n for n, floor in ALL.items() if not Requirement(n + floor).specifier.contains(versions[n])] == []


def test_the_floors_are_pinned_for_their_test():
    pins = subprocess.run(
        [sys.executable, ROOT / "tools/release/floors.py"], capture_output=True, text=True, check=True
    )
    assert dict(line.split("==") for line in pins.stdout.split()) == {
        Requirement(r).name: str(Requirement(r).specifier).removeprefix(">=") for r in PROJECT["dependencies"]
    }
    for bad in ("torch", "torch<3", "torch>=2.6,<3"):
        with pytest.raises(ValueError):
            oldest(bad)


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports from outside its package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("antipure_lib", ("judge", "notebooks", "restorer", "study")),
        ("tools", ("judge", "notebooks", "site", "tools")),
        ("tests", tuple(EXTRAS)),
    ],
)
def test_every_import_is_a_requirement(folder, extras):
    distributions = packages_distributions() | BARE_MODULES
    declared = CORE | floors([requirement for extra in extras for requirement in EXTRAS[extra]])
    own = {"antipure_lib", "tools", "tests"} | {path.stem for path in (ROOT / "tests/helpers").glob("*.py")}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imported(path) - own - BY_HAND
        if not {canonicalize_name(d) for d in distributions.get(name, [name])} & set(declared)
    ]
    assert missing == []


def test_citation_agrees_with_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == (ROOT / "LICENSE").read_text().split()[0]


def test_the_contract_of_imports_names_every_wing():
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = [wing for layer in contract["layers"] for wing in layer.split(" | ")]
    assert sorted(named) == sorted(
        f"antipure_lib.{p.parent.name}" for p in ROOT.glob("antipure_lib/*/__init__.py")
    )


STUB = """#!/bin/sh
[ "$1" = -c ] && exit
echo "noise of $*"; echo "WARNING: noise" >&2
case "$*" in *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; *"{fails}"*) exit 3;; esac
"""


@pytest.mark.parametrize(
    ("fails", "stages"), [("never", 3), ("requirements.lock", 2), ("no-build-isolation", 3)]
)
def test_set_up_prints_a_line_a_stage_and_names_its_log_when_one_fails(tmp_path, fails, stages):
    python, log = tmp_path / "python", tmp_path / "build" / "setup.log"
    python.write_text(STUB.format(fails=fails))
    python.chmod(0o755)
    words = [f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", f"LOG={log}"]
    done = subprocess.run(
        ["make", "--no-print-directory", "setup", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert [line[:10] for line in done.stdout.splitlines()] == [f"set-up {k}/3" for k in range(1, stages + 1)]
    assert log.read_text().count("noise") == 2 * stages
    assert (tmp_path / "venv" / ".ready").exists() == (fails == "never")
    if fails == "never":
        assert done.returncode == 0 and done.stderr == ""
    else:
        assert done.returncode and f"The whole log is {log}." in done.stderr and "noise" in done.stderr


def test_make_alone_lists_the_targets():
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    phony = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert [line.split()[1] for line in listed.stdout.splitlines()] == phony


def test_without_make_the_same_chapters_are_tested():
    planned = ["make", "--no-print-directory", "-n", "test", "VENV=.nowhere"]
    made = subprocess.run(planned, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (by_hand,) = [
        line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if "--nbval-lax" in line
    ]
    globs = re.findall(r"notebooks/\S+\.ipynb", by_hand)
    named = {str(path.relative_to(ROOT)) for pattern in globs for path in ROOT.glob(pattern)}
    assert named == set(re.findall(r"notebooks/\S+\.ipynb", made)) and named


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, check=True)


def test_wheel_carries_what_the_notebooks_read_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = {name.removeprefix("antipure_lib/") for name in names if name.startswith("antipure_lib/data/")}
    on_disk = {
        file.relative_to(ROOT).as_posix()
        for folder in ("models", "faces", "judges", "photos", "start", "results")
        for file in (ROOT / "data" / folder).rglob("*")
        if file.is_file()
    }
    cards = {f"data/{file.name}" for file in (ROOT / "data").glob("*.md")}
    assert data == on_disk | cards
    faces = [name for name in data if re.fullmatch(r"data/faces/\w+/[ABC][1-4]\.png", name)]
    assert len(faces) == 12 * 12
    assert {"data/models/ddpm/model_index.json", "data/models/sd/model_index.json"} <= data
    assert any(re.fullmatch(r"data/photos/[\w-]+\.png", name) for name in data)
    assert {"data/judges/lpips_alex.safetensors", "data/judges/brisque.safetensors"} <= data
    other = [
        name for name in names if not re.match(r"antipure_lib/(data/|[\w/]+\.pyi?$)|\S+\.dist-info/", name)
    ]
    assert other == []


PROTECT = """
import sys
from pathlib import Path
import antipure_lib
from antipure_lib import antipure, data_path, load_ddpm, load_faces, load_image, save_image

target = Path(sys.argv[1])
assert Path(antipure_lib.__file__).is_relative_to(target), antipure_lib.__file__
assert data_path("faces", "p01", "B1.png").is_relative_to(target)
x = load_faces("p01", "B")[:1]
protected = antipure(load_ddpm("nano", device="cpu"), x, eta=8 / 255, steps=2, seed=0)
save_image(protected[0], "protected.png")
change = (load_image("protected.png") - x[0]).abs().max().item()
assert 0 < change <= 8 / 255 + 1e-6, change
print("protected")
"""


def test_wheel_protects_a_face_in_another_folder(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    done = subprocess.run(
        [sys.executable, "-c", PROTECT, str(target)],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "protected\n"
    assert (elsewhere / "protected.png").stat().st_size > 0
