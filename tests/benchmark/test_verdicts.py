"""Verdicts on made-up people whose effects are known, and on every mixture of states."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antipure_lib.benchmark import verdicts as v
from antipure_lib.benchmark.intervals import holm, paired_test
from antipure_lib.benchmark.tables import select

PEOPLE = [f"p{k:02}" for k in range(1, 9)]
PURIFIERS = ["none", "gridpure10", "gridpure2x20", "jpeg75", "diffpure100", "waifu2x"]
NAMES = ["none", "random", "antipure", *v.RIVALS]


def made(ism, lpips=None, people=PEOPLE, seeds=(0,), names=NAMES, purifiers=PURIFIERS):
    """Rows with ism(protect, purify) and lpips(protect) plus a person's own level and a little noise."""
    generator = np.random.default_rng(0)
    level = dict(zip(people, generator.normal(0.9, 0.05, len(people)), strict=True))
    return [
        {
            "protect": a,
            "purify": b,
            "customize": "lora",
            "identity": who,
            "seed": seed,
            "ism": level[who] + ism(a, b) + generator.normal(0, 0.001),
            "lpips": (lpips or {}).get(a, np.nan if a == "none" else 0.2) + generator.normal(0, 0.001),
        }
        for who, a, b, seed in itertools.product(people, names, purifiers, seeds)
    ]


def as_the_paper_says(protect, purify):
    strength = {"none": 0, "gridpure10": 1, "gridpure2x20": 4}.get(purify, 2)
    if protect == "antipure":
        return -0.05 - 0.03 * strength
    return {"none": 0.0, "random": -0.02}.get(protect, -0.04 + 0.005 * strength)


def test_what_the_paper_says_is_reproduced_and_its_opposite_reversed():
    low = {"antipure": 0.1}
    assert set(v.verdicts(made(as_the_paper_says, low)).values()) == {"reproduced"}
    opposite = v.verdicts(made(lambda a, b: -as_the_paper_says(a, b), {"antipure": 0.3}))
    assert set(opposite.values()) == {"reversed"}


def test_nothing_but_noise_decides_nothing():
    found = v.verdicts(made(lambda a, b: 0.0))
    assert set(found.values()) == {"undecided"}


def test_one_rival_that_is_clearly_ahead_is_enough_to_contradict_and_none_to_reverse():
    def one_ahead(protect, purify):
        return as_the_paper_says(protect, purify) - 0.5 * (protect == "simac")

    found = v.verdicts(made(one_ahead, {"antipure": 0.1}))
    assert found.pop("best after purification") == "not reproduced"
    assert set(found.values()) == {"reproduced"}


def test_people_differ_more_than_methods_and_pairing_takes_that_out():
    rows = made(as_the_paper_says)
    values = [row["ism"] for row in rows if (row["protect"], row["purify"]) == ("antipure", "jpeg75")]
    effect = abs(as_the_paper_says("antipure", "jpeg75") - as_the_paper_says("random", "jpeg75"))
    assert np.ptp(values) > effect  # over people
    gain = v.gains(rows, v.better("antipure", "random", "jpeg75"))
    assert list(gain.values()) == pytest.approx([effect] * len(PEOPLE), abs=0.01)


def test_what_is_missing_is_named_and_not_judged():
    rows = made(as_the_paper_says, names=["none", "random", "antipure"], purifiers=["none", "gridpure2x20"])
    found = v.verdicts(rows)
    assert found.pop("protects at all") == "reproduced"
    assert set(found.values()) == {"not measured yet"}
    assert set(v.verdicts([]).values()) == {"not measured yet"}
    claim = v.claims()["stronger with more purification"]
    missing = ["AntiPure (balanced) after GrIDPure 10", "clean photos after GrIDPure 10"]
    assert v.missing_cells(rows, claim) == missing
    assert v.missing_cells(made(as_the_paper_says), claim) == []


def test_few_people_can_decide_nothing_however_large_the_effect():
    for n in (1, 2, 5):
        found = v.findings(made(as_the_paper_says, people=PEOPLE[:n]), v.claims()["protects at all"])
        assert {f.state for f in found} == {"missing" if n == 1 else "unclear"}


def test_only_seeds_that_all_cells_share_count():
    rows = made(as_the_paper_says, seeds=(0, 1))
    contrast = v.better("antipure", "none")
    both = v.gains(rows, contrast)
    first = v.gains([row for row in rows if row["seed"] == 0], contrast)
    assert both != first
    # One side's second seed alone changes nothing.
    half = [row for row in rows if row["seed"] == 0 or row["protect"] == "antipure"]
    assert v.gains(half, contrast) == first
    each = [v.gains([row for row in rows if row["seed"] == seed], contrast) for seed in (0, 1)]
    assert both == pytest.approx({name: np.mean([own[name] for own in each]) for name in PEOPLE})


def test_a_person_without_a_face_is_left_out():
    rows = made(as_the_paper_says)
    for row in select(rows, identity="p03", protect="antipure"):
        row["ism"] = np.nan
    assert list(v.gains(rows, v.better("antipure", "none"))) == [name for name in PEOPLE if name != "p03"]


def test_findings_are_the_sign_flip_tests_with_holms_correction():
    rows = made(as_the_paper_says)
    claim = v.claims()["best after purification"]
    alone = [paired_test(v.gains(rows, c), dict.fromkeys(PEOPLE, 0.0)) for c in claim]
    corrected = holm(dict(enumerate(alone)))
    assert [f.p for f in v.findings(rows, claim)] == list(corrected.values())


def test_a_figure_that_is_to_be_large_counts_the_other_way_round():
    rows = [row | {"distance": -row["ism"]} for row in made(as_the_paper_says)]
    by_ism = v.gains(rows, v.better("antipure", "aspl"))
    by_distance = v.gains(rows, v.better("antipure", "aspl", figure="distance"))
    assert by_distance == pytest.approx(by_ism)
    strong, weak = (v.gains(rows, make("aspl")) for make in (v.stronger, v.fades))
    assert strong == pytest.approx({name: -value for name, value in weak.items()})


@given(st.lists(st.sampled_from(["as claimed", "the other way", "unclear", "missing"]), max_size=5))
def test_the_rule(states):
    found = v.verdict(states)
    assert found in v.VERDICTS
    assert found == v.verdict(states[::-1])  # the order doesn't matter
    assert (found == "reproduced") == (bool(states) and all(s == "as claimed" for s in states))
    assert (found in ("reversed", "not reproduced")) == ("the other way" in states)
    if found == "undecided":
        assert "unclear" in states and "missing" not in states


def test_the_claims_can_be_made_for_another_protection():
    ours, papers = v.claims(), v.claims(ours="antipure-paper")
    renamed = {"antipure": "antipure-paper"}
    for name, claim in ours.items():
        for one, other in zip(claim, papers[name], strict=True):
            assert list(other.cells) == [(w, renamed.get(p, p), *rest) for w, p, *rest in one.cells]
