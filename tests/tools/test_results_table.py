"""README's table of results: made from the study's rows, and as committed."""

from math import nan
from pathlib import Path

import pytest

from antipure_lib.benchmark.intervals import Interval
from antipure_lib.benchmark.rows import read_rows
from antipure_lib.models.embedded import data_path
from tools.notebooks.results import results_table, with_interval, with_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Interval(0.71, 0.489, 0.94, 8), "71 % (49–94)"),
        (Interval(0.07, -0.06, 0.21, 8), "7 % (0–21)"),
        (Interval(0.95, 0.8, 1.1, 8), "95 % (80–100)"),
        (Interval(0.0, 0.0, 0.0, 8), "0 %"),
    ],
)
def test_intervals_end_at_0_and_100(rate, text):
    assert with_interval(rate) == text


def row(protect, purify, who, rate, **others):
    return (
        dict(protect=protect, purify=purify, customize="lora", identity=who, seed=0)
        | dict(same_person=rate, lpips=0.25)
        | others
    )


def test_a_protection_has_a_line_if_both_columns_are_measured():
    rows = [
        row("none", purify, who, 0.5, lpips=nan)
        for purify in ("none", "gridpure2x20")
        for who in ("p01", "p02")
    ]
    rows += [row("advdm", "none", "p01", 0.25)]
    rows += [row("simac", "none", who, rate) for who, rate in (("p01", 0.0), ("p02", 0.5))]
    rows += [row("simac", "gridpure2x20", who, 0.125) for who in ("p01", "p02")]
    # These don't count: another learner, another seed.
    rows += [row("none", "none", "p01", 1.0, customize="dreambooth"), row("none", "none", "p01", 1.0, seed=1)]
    _, _, *lines = results_table(rows).splitlines()
    # Student's interval of 0 and 0.5: 0.25 ± 12.706 · 0.3536 / √2, wider than 0 to 1.
    assert lines == ["| clean photos | 50 % | 50 % | – |", "| SimAC | 25 % (0–100) | 12 % | 0.250 |"]


def test_readme_has_the_study_s_figures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results_table(read_rows(data_path("results", "study.csv"))) in text
    assert with_results(text) == text
    assert with_results(text.replace("| SimAC | 0 %", "| SimAC | 1 %")) == text
