"""The package's names are imported when they are used, and mean the same in whichever order."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import antipure_lib


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def stub() -> dict[str, list[str]]:
    """The stub's imports: module → names."""
    nodes = ast.parse(Path(antipure_lib.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    return {node.module: [a.name for a in node.names] for node in nodes if isinstance(node, ast.ImportFrom)}


def test_every_listed_name_is_the_one_of_its_module():
    assert {"antipure", "load_ddpm", "PROTECTIONS", "Judge"} <= set(antipure_lib.__all__)
    assert set(antipure_lib.__all__) <= set(dir(antipure_lib))
    for module, names in stub().items():
        for name in names:
            value = getattr(antipure_lib, name)
            assert value is getattr(importlib.import_module(f"antipure_lib.{module}"), name)
            assert not isinstance(value, ModuleType)
    wings = {folder.name for folder in Path(antipure_lib.__file__).parent.iterdir()}
    assert not wings & set(antipure_lib.__all__)  # a wing that is imported would hide the name


def test_nothing_heavy_is_imported_before_it_is_used():
    names = {"torch", "numpy", "diffusers", "transformers", "peft", "dlib", "skimage", "matplotlib", "scipy"}
    heavy = f"print(*sorted({names} & set(sys.modules)))"
    printed = python(f"import sys, antipure_lib; {heavy}; antipure_lib.pick_device; {heavy}")
    assert printed.splitlines()[0] == ""
    assert "torch" in printed.splitlines()[1] and "diffusers" not in printed.splitlines()[1]


def test_unknown_names_and_stars():
    with pytest.raises(AttributeError, match="No antipure_lib attribute antipur"):
        antipure_lib.antipur  # noqa: B018
    with pytest.raises(ImportError, match="antipur"):
        exec("from antipure_lib import antipur")
    star = "from antipure_lib import *; print(gridpure.__module__)"
    assert python(star) == "antipure_lib.purifiers.gridpure\n"
