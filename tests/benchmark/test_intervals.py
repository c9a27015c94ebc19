"""t intervals against scipy and by coverage, sign flips against enumeration."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from antipure_lib.benchmark.intervals import paired_test, t_interval


@pytest.mark.parametrize("level", [0.8, 0.95, 1 - 0.05 / 19])
def test_t_interval_is_scipys(level):
    values = np.random.default_rng(1).normal(2, 3, size=8)
    found = t_interval([*values, np.nan], level)
    test = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert found == pytest.approx((values.mean(), test.low, test.high, 8))


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
