"""Verdicts on made-up people whose effects are known, and on every mixture of states."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antipure_lib.benchmark import verdicts as v
from antipure_lib.benchmark.intervals import t_interval
from antipure_lib.benchmark.tables import select

PEOPLE = [f"p{k:02}" for k in range(1, 9)]
PURIFIERS = ["none", "gridpure10", "gridpure2x20", "diffpure100", "waifu2x"]
NAMES = ["none", "random", "antipure", "antipure-pfg", "antipure-etg", *v.RIVALS]
LEAST = {"antipure": 0.1}  # LPIPS; the others have 0.2


def made(rate, lpips=None, people=PEOPLE, seeds=(0,), names=NAMES, purifiers=PURIFIERS, noise=0.001):
    """Rows with pass rates rate(protect, purify) plus a person's own level and a little noise."""
    generator = np.random.default_rng(0)
    level = dict(zip(people, generator.normal(0, 0.1, len(people)), strict=True))
    return [
        {
            "protect": a,
            "purify": b,
            "customize": "lora",
            "identity": who,
            "seed": seed,
            "same_person": level[who] + rate(a, b) + generator.normal(0, noise),
            "lpips": (lpips or {}).get(a, np.nan if a == "none" else 0.2) + generator.normal(0, noise),
        }
        for who, a, b, seed in itertools.product(people, names, purifiers, seeds)
    ]


def as_the_paper_says(protect, purify):
    strength = {"none": 0, "gridpure10": 1, "gridpure2x20": 4}.get(purify, 3)
    if protect == "antipure":
        return 0.5 - 0.1 * strength
    return {"none": 0.8, "random": 0.7}.get(protect, 0.2 + 0.1 * strength)


def test_what_the_paper_says_is_reproduced_and_its_opposite_contradicted():
    assert set(v.verdicts(made(as_the_paper_says, LEAST)).values()) == {"reproduced"}
    opposite = v.verdicts(made(lambda a, b: 1 - as_the_paper_says(a, b), {"antipure": 0.3}))
    assert set(opposite.values()) == {"contradicted"}


def test_a_small_gain_is_no_gain_however_sure_it_is():
    rows = made(lambda a, b: 0.5 - 0.05 * (a == "antipure"))
    [ruling] = v.rulings(rows, v.claims()["protects after purification"])
    assert 0 < ruling.interval.low < ruling.interval.high < v.MATTERS["same_person"]
    assert ruling.state == "below" and v.verdicts(rows)["protects after purification"] == "contradicted"


def test_people_who_differ_much_decide_nothing():
    found = v.verdicts(made(lambda a, b: 0.5, noise=0.3))
    assert set(found.values()) == {"undecided"}


def test_one_rival_that_is_ahead_is_enough_to_contradict():
    def one_ahead(protect, purify):
        return as_the_paper_says(protect, purify) - 0.9 * (protect == "simac")

    found = v.verdicts(made(one_ahead, LEAST))
    assert found.pop("is the best after purification") == "contradicted"
    assert set(found.values()) == {"reproduced"}


def test_people_differ_more_than_methods_and_pairing_takes_that_out():
    rows = made(lambda a, b: -0.15 * (a == "antipure"))
    values = [row["same_person"] for row in select(rows, protect="antipure", purify="waifu2x")]
    assert np.ptp(values) > 0.15  # over people
    gain = v.gains(rows, v.better("antipure", "random", "waifu2x"))
    assert list(gain.values()) == pytest.approx([0.15] * len(PEOPLE), abs=0.01)


def test_what_is_missing_is_named_and_not_judged():
    rows = made(as_the_paper_says, names=["none", "random", "antipure"], purifiers=["none", "gridpure2x20"])
    found = v.verdicts(rows)
    assert found.pop("protects after purification") == "reproduced"
    assert set(found.values()) == {"not measured yet"}
    assert set(v.verdicts([]).values()) == {"not measured yet"}
    claim = v.claims()["transfers to other purifiers"]
    purifiers = ("DiffPure 100", "waifu2x")
    names = ("AntiPure (balanced)", "clean photos")
    assert v.missing_cells(rows, claim) == [f"{name} after {p}" for p in purifiers for name in names]
    assert v.missing_cells(made(as_the_paper_says), claim) == []


def test_one_person_decides_nothing():
    found = v.rulings(made(as_the_paper_says, people=PEOPLE[:1]), v.claims()["needs both guidances"])
    assert {ruling.state for ruling in found} == {"missing"}


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


def test_a_person_without_the_figure_is_left_out():
    rows = made(as_the_paper_says)
    for row in select(rows, identity="p03", protect="antipure"):
        row["same_person"] = np.nan
    assert list(v.gains(rows, v.better("antipure", "none"))) == [name for name in PEOPLE if name != "p03"]


def test_rulings_are_t_intervals_at_the_level_that_the_family_leaves():
    rows = made(as_the_paper_says, noise=0.1)
    claim = v.claims()["is the best after purification"]
    wanted = [t_interval(list(v.gains(rows, c).values()), 1 - 0.05 / 19) for c in claim]
    assert [ruling.interval for ruling in v.rulings(rows, claim)] == wanted
    assert sum(map(len, v.claims().values())) <= v.FAMILY


def test_a_figure_that_is_to_be_large_counts_the_other_way_round():
    rows = [row | {"distance": -row["same_person"]} for row in made(as_the_paper_says)]
    by_rate = v.gains(rows, v.better("antipure", "aspl"))
    by_distance = v.gains(rows, v.better("antipure", "aspl", figure="distance"))
    assert by_distance == pytest.approx(by_rate)


def test_overtaking_is_the_growth_of_the_lead():
    rows = made(as_the_paper_says)
    lead = {p: v.gains(rows, v.better("antipure", "aspl", p)) for p in (v.WEAK, v.CHAIN)}
    grown = v.gains(rows, v.overtakes("antipure", "aspl"))
    assert grown == pytest.approx({who: lead[v.CHAIN][who] - lead[v.WEAK][who] for who in PEOPLE})


@given(st.lists(st.sampled_from(["above", "below", "unclear", "missing"]), max_size=5))
def test_the_rule(states):
    found = v.verdict(states)
    assert found in v.VERDICTS
    assert found == v.verdict(states[::-1])  # the order doesn't matter
    assert (found == "reproduced") == (bool(states) and all(s == "above" for s in states))
    assert (found == "contradicted") == ("below" in states)
    if found == "undecided":
        assert "unclear" in states and "missing" not in states


def test_the_claims_can_be_made_for_another_protection():
    ours, papers = v.claims(), v.claims(ours="antipure-paper")
    for name, claim in ours.items():
        for one, other in zip(claim, papers[name], strict=True):
            renamed = [(w, p.replace("antipure", "antipure-paper"), q) for w, p, q in one.cells]
            assert list(other.cells) == renamed
