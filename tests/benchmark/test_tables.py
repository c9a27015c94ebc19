"""Tables and figures of the benchmark on made-up rows whose means are known."""

import itertools

import matplotlib
import numpy as np
import pytest

from antipure_lib.benchmark import figures
from antipure_lib.benchmark.intervals import t_interval
from antipure_lib.benchmark.tables import (
    by_person,
    comparable,
    interval_of,
    protection_name,
    purifier_name,
    select,
)
from antipure_lib.protections.registry import PROTECTIONS

matplotlib.use("Agg")
PEOPLE = [f"p{k:02}" for k in range(1, 9)]
EFFECT = {"none": 0.0, "random": -0.01, "antipure": -0.2}
SHOWN = ["clean photos", "random signs", "AntiPure (balanced)"]


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    made = []
    cells = itertools.product(EFFECT, {"gridpure10": 1, "gridpure40": 2}.items(), PEOPLE, [0, 1])
    for protect, (purify, strength), identity, seed in cells:
        ism = 0.9 + EFFECT[protect] * strength + generator.normal(0, 0.01)
        lpips = np.nan if protect == "none" else 0.1 * (protect == "random") + 0.05
        known = dict(protect=protect, purify=purify, customize="lora", identity=identity, seed=seed)
        made.append(known | dict(ism=ism, lpips=lpips))
    return made


def test_select_takes_values_and_lists(rows):
    assert len(select(rows, protect="none")) == len(rows) / 3
    assert len(select(rows, protect=["none", "random"], purify="gridpure10", seed=1)) == 2 * len(PEOPLE)


def test_a_person_counts_once_however_many_seeds(rows):
    own = select(rows, protect="antipure", purify="gridpure10")
    means = by_person(own, "ism")
    two = [row["ism"] for row in own if row["identity"] == "p03"]
    assert list(means) == PEOPLE and means["p03"] == pytest.approx(sum(two) / 2)
    assert interval_of(own, "ism") == t_interval(list(means.values())) and len(means) == len(PEOPLE)
    assert np.isnan(by_person(select(rows, protect="none"), "lpips")["p01"])


def test_comparable_rows_are_of_people_and_seeds_that_all_methods_have(rows):
    assert comparable(rows) == rows and comparable([]) == []
    gone = [row for row in select(rows, protect="antipure") if row["identity"] > "p05"]
    gone += select(rows, protect="random", identity="p02", seed=1)
    some = [row for row in select(rows, purify="gridpure40") if row not in gone]
    units = [(person, seed) for person in PEOPLE[:5] for seed in (0, 1)]
    units.remove(("p02", 1))
    found = comparable(some)
    assert {name: len(select(found, protect=name)) for name in EFFECT} == dict.fromkeys(EFFECT, len(units))
    assert {(row["identity"], row["seed"]) for row in found} == set(units)


def test_the_first_person_of_a_method_costs_the_others_nothing(rows):
    one = [row for row in rows if row["protect"] != "antipure" or row["identity"] == "p01"]
    assert comparable(one) == select(rows, protect=["none", "random"])
    alone = select(one, identity="p01")
    assert comparable(alone) == alone
    two = [row for row in select(rows, identity=PEOPLE[:2]) if "p01" == row["identity"] or row in one]
    assert comparable(two) == select(rows, identity=PEOPLE[:2], protect=["none", "random"])


@pytest.mark.parametrize("few, kept", [(3, 8), (4, 4)])
def test_a_method_counts_once_half_as_many_people_have_it(rows, few, kept):
    some = [row for row in rows if row["protect"] != "antipure" or row["identity"] in PEOPLE[:few]]
    methods = list(EFFECT) if kept == few else ["none", "random"]
    assert comparable(some) == select(rows, identity=PEOPLE[:kept], protect=methods)


@pytest.mark.parametrize("intervals", [False, True])
def test_lines_go_through_the_means_and_their_names_keep_apart(rows, intervals):
    purifiers = ["gridpure10", "gridpure40"]
    if intervals:
        axis = figures.show_iterations(rows, "ism", purifiers).axes[0]
    else:
        axis = figures.show_slopes(rows, purifiers, "ism").axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["GrIDPure 10", "GrIDPure 40"]
    assert "↓" in axis.get_ylabel()
    for drawn, name in zip(axis.containers, EFFECT, strict=True):
        wanted = [interval_of(select(rows, protect=name, purify=p), "ism") for p in purifiers]
        assert drawn.lines[0].get_ydata() == pytest.approx([found.mean for found in wanted])
        if intervals:
            low, high = drawn.lines[2][0].get_segments()[0][:, 1]
            assert (low, high) == pytest.approx((wanted[0].low, wanted[0].high))
    heights = sorted(text.get_position()[1] for text in axis.texts)
    assert len(heights) == len(EFFECT)
    assert min(np.diff(heights)) > 0.03 * np.diff(axis.get_ylim())[0]


def test_means_stand_in_panels_with_their_intervals(rows):
    panels = {"weak": select(rows, purify="gridpure10"), "one person": select(rows, identity="p01", seed=0)}
    axes = figures.show_means(panels, "ism").axes
    assert [axis.get_title() for axis in axes] == list(panels)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == SHOWN
    wanted = interval_of(select(rows, purify="gridpure10", protect="antipure"), "ism")
    low, high = axes[0].containers[2].lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert float(axes[0].containers[2].lines[0].get_xdata()[0]) == pytest.approx(wanted.mean)
    assert np.size(axes[1].containers[0].lines[2][0].get_segments()[0]) == 0  # one person: no interval


def test_pareto_leaves_out_what_changes_no_photo(rows):
    axis = figures.show_pareto(select(rows, purify="gridpure10")).axes[0]
    assert {text.get_text() for text in axis.texts} == set(SHOWN[1:]) and axis.get_legend() is None
    x, y = (float(values[0]) for values in axis.containers[0].lines[0].get_data())
    assert x == pytest.approx(0.15) and y == pytest.approx(0.89, abs=0.01)


def test_heat_map_is_darker_where_the_protector_wins(rows):
    figure = figures.show_grid(rows, "ism")
    image = figure.axes[0].images[0].get_array()
    assert image[2].min() > image[:2].max()  # ISM is to be low, so AntiPure's line is darkest
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == f"{interval_of(select(rows, protect='none', purify='gridpure10'), 'ism').mean:.3f}"


def test_every_protection_has_a_title_and_a_look_of_its_own():
    looks = {(found["color"], found["marker"]) for found in map(figures.style, PROTECTIONS)}
    assert len(looks) == len({record.title for record in PROTECTIONS.values()} - {""}) == len(PROTECTIONS)


def test_a_method_without_a_record_has_its_own_name_and_a_steady_look():
    assert (protection_name("mine"), purifier_name("theirs75")) == ("mine", "theirs75")
    assert figures.style("mine") == figures.style("mine")


def test_a_purifiers_name_holds_its_numbers():
    shown = {
        "none": "as posted",
        "gridpure2x20": "GrIDPure 2 × 20",
        "jpeg75+resize0.5": "JPEG 75 + resize 0.5",
    }
    assert {name: purifier_name(name) for name in shown} == shown


def test_names_keep_apart_and_stay_as_near_as_they_can():
    apart = figures._apart({"a": 0.0, "b": 0.1, "c": 5.0, "d": np.nan}, 1.0)
    assert apart == pytest.approx({"a": -0.45, "b": 0.55, "c": 5.0})
