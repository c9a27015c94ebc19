"""The small models' tables in docs/measured.md: made from the measurements' files, and as committed."""

import json
from pathlib import Path

import pytest

from antipure_lib.models.embedded import data_path
from tools.notebooks.measured import learned, percent, plus_minus, purified, with_small_models

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.85, "85 %"), (0.98438, "98.4 %"), (0.0, "0 %")]
)
def test_a_share_keeps_one_digit_if_it_has_one(share, text):
    assert percent(share) == text


def test_means_have_the_digits_that_are_asked_for():
    assert plus_minus({"mean": 32.4059, "sd": 1.8372}, 1) == "32.4 ± 1.8"
    assert plus_minus({"mean": 0.3756, "sd": 0.0435}) == "0.38 ± 0.04"


def test_every_purifier_has_its_line_and_the_worst_run_is_the_worst():
    found = json.loads(data_path("results", "nano_purifier.json").read_text())
    found["rows"]["gridpure 40"] |= dict(same_person=0.5, fdfr=0.25)
    last = purified(found).splitlines()[-1].split(" | ")
    assert last[0] == "| GrIDPure, 2 × 20 iterations" and last[3:] == ["75 %", "50 % |"]
    found = json.loads(data_path("results", "nano_customize.json").read_text())
    found["rows"][-1] |= dict(method="lora", same_person=0.01)
    rows = [line.split(" | ") for line in learned(found).splitlines()[2:]]
    assert [row[0] for row in rows] == ["| the photos themselves", "| DreamBooth", "| LoRA"]
    assert rows[2][2] == "1 %"


def test_the_committed_tables_are_those_of_the_files():
    text = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert with_small_models(text) == text and "| LoRA |" in text
    assert with_small_models(text.replace("| LoRA |", "| LoRA, typed |")) == text
