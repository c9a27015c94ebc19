"""t intervals against scipy and by coverage, bootstrap against a normal sample's closed form.

Sign flips against enumeration, Holm against step-down.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from antipure_lib.benchmark.intervals import bootstrap_interval, holm, paired_test, t_interval


def test_interval_of_a_large_sample_is_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=500)
    found = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found[1:3] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_leaves_nan_out_and_says_when_it_knows_nothing():
    assert bootstrap_interval([1, 2, np.nan, 4]) == bootstrap_interval([1, 2, 4])
    one = bootstrap_interval([5.0, np.nan])
    assert one.mean == 5 and one.n == 1 and np.isnan(one.low) and np.isnan(one.high)
    assert np.isnan(bootstrap_interval([]).mean)


@pytest.mark.parametrize("level", [0.8, 0.95, 1 - 0.05 / 19])
def test_t_interval_is_scipys(level):
    values = np.random.default_rng(1).normal(2, 3, size=8)
    found = t_interval([*values, np.nan], level)
    test = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert found == pytest.approx((values.mean(), test.low, test.high, 8))


def test_t_interval_of_few_covers_as_often_as_it_says_and_the_bootstrap_less():
    people = np.random.default_rng(2).normal(size=(400, 5))
    hits = {
        make: np.mean([found.low <= 0 <= found.high for found in map(make, people)])
        for make in (t_interval, bootstrap_interval)
    }
    assert 0.92 < hits[t_interval] < 0.98 and hits[bootstrap_interval] < 0.9


@pytest.mark.parametrize("level", [0, 1, -0.5, "95 %"])
def test_t_interval_refuses_what_is_no_level(level):
    with pytest.raises(ValueError, match="level"):
        t_interval([1, 2, 3], level)


def test_t_interval_says_when_it_knows_nothing():
    one = t_interval([5.0, np.nan])
    assert one.mean == 5 and one.n == 1 and np.isnan(one.low) and np.isnan(one.high)
    assert np.isnan(t_interval([]).mean) and t_interval([]).n == 0
    assert t_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0, 3)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=7))
def test_paired_test_counts_the_sign_flips_that_are_as_extreme(differences):
    a = {str(k): float(value) for k, value in enumerate(differences)}
    b = dict.fromkeys(a, 0.0)
    flipped = np.array([np.dot(signs, differences) / len(a) for signs in product([1, -1], repeat=len(a))])
    at_least = (np.abs(flipped) >= abs(np.mean(differences)) - 1e-9).mean()
    assert paired_test(a, b) == pytest.approx(at_least, abs=1e-9)


def test_paired_test_uses_the_people_that_both_know():
    a = {"p1": 1.0, "p2": 2.0, "p3": 3.0, "p4": 4.0, "p9": np.nan}
    b = {"p1": 0.0, "p2": 1.0, "p3": 2.0, "p9": 0.0}
    assert paired_test(a, b) == pytest.approx(2 / 2**3)
    assert np.isnan(paired_test(a, {"p1": 0.0}))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.999))
def test_holm_rejects_what_its_step_down_rule_rejects(values, alpha):
    p_values, rejected, m = dict(enumerate(values)), set(), len(values)
    for k, (p, name) in enumerate(sorted((p, name) for name, p in p_values.items())):
        if p * (m - k) > alpha:
            break
        rejected.add(name)
    assert {name for name, p in holm(p_values).items() if p <= alpha} == rejected


def test_holm_lets_unknown_values_be():
    adjusted = holm({"a": 0.01, "b": np.nan, "c": 0.04})
    assert adjusted == pytest.approx({"a": 0.02, "b": np.nan, "c": 0.04}, nan_ok=True)
