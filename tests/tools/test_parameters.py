"""New values for a notebook's parameters cell: read by the default's type, or refused."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools.notebooks.parameters import new_values, parameters_of

CELL = """\
%matplotlib inline
ETA = 8  # budget, in steps of 1/255; default = 8
LR: float = 1e-3  # try 1e-4 = slower
FAST = True
FOLDER = "a # b = c"  # "": none = a temporary one
STEPS = WARM_UP = 10
PROMPTS = [
    "one",  # = the first
    "two",
]
ROOT = Path("x")  # an expression
NOTHING = None
SHARE = 1 / 4
"""
NOTEBOOK = new_notebook(cells=[new_code_cell(CELL, metadata={"tags": ["parameters"]})])
HOME = str(Path.home())
AS_IT_IS = ("2024/05", "1/2", "007", "1e3", "True", "None", "[1]", "", "a~/x")  # text, whatever it looks like
VALUES = {
    "ETA": {"16": 16, "1e1": 10, " 7": 7},
    "LR": {"1/8": 0.125, "8 / 255": 8 / 255, "2": 2.0, "-0.5": -0.5},
    "FAST": {"False": False, "false": False, "true": True},
    "FOLDER": {"'quoted'": "quoted", "~": HOME, "~/x": f"{HOME}/x", "'~/x y'": f"{HOME}/x y"}
    | {text: text for text in AS_IT_IS},
    "PROMPTS": {"['three']": ["three"]},
    "ROOT": {"3": 3, "1/0": "1/0"},  # of which nothing is known
    "NOTHING": {"p02": "p02", "None": None},
}
REFUSED = [
    (
        "ETA",
        "16/255",
        "can't be '16/255'; it takes a whole number, see `ETA = 8  # budget, in steps of 1/255",
    ),
    ("ETA", "8.5", "a whole number"),
    ("ETA", 8 / 255, "a whole number"),
    ("ETA", "True", "a whole number"),
    ("LR", "big", "a number, see `LR: float = 1e-3"),
    ("LR", "nan", "a number"),
    ("FAST", "1", "True or False"),
    ("PROMPTS", "one", "a list, see `PROMPTS = "),
    ("FOLDER", 3, "takes text"),
    ("EAT", 3, "unknown parameter EAT; the known ones are ETA, LR, FAST, FOLDER, STEPS, WARM_UP, PROMPTS"),
]


def test_what_the_cell_assigns():
    defaults = {name: default for name, (default, _) in parameters_of(NOTEBOOK).items()}
    assert defaults == dict(
        ETA=8, LR=1e-3, FAST=True, FOLDER="a # b = c", STEPS=10, WARM_UP=10, PROMPTS=["one", "two"]
    ) | dict(ROOT=None, NOTHING=None, SHARE=0.25)


@pytest.mark.parametrize("name", VALUES)
def test_text_is_read_by_the_type_of_the_default(name):
    for text, value in VALUES[name].items():
        found = new_values(NOTEBOOK, {name: text})[name]
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value", [16, 16.0])
def test_numbers_stay_numbers(value):
    found = new_values(NOTEBOOK, {"ETA": value, "LR": value})
    assert found == {"ETA": 16, "LR": 16.0} and type(found["ETA"]) is int


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_another_type_and_an_unknown_name_are_refused(name, value, message):
    with pytest.raises(ValueError) as error:
        new_values(NOTEBOOK, {name: value})
    assert message in str(error.value)


def test_a_cell_that_is_missing_or_not_python_says_so():
    with pytest.raises(ValueError, match="no cell is tagged 'parameters'"):
        new_values(new_notebook(), {"SEED": 1})
    broken = new_notebook(cells=[new_code_cell("SEED = ", metadata={"tags": ["parameters"]})])
    with pytest.raises(ValueError, match="its parameters cell isn't Python .invalid syntax, line 1"):
        new_values(broken, {"SEED": 1})
