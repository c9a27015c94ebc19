"""How sure a mean is, and whether two methods differ: Student's t intervals, an exact paired test.

The unit is the person. A person's seeds are averaged first: another seed is no new evidence about people.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..runtime.checks import check_number


class Interval(NamedTuple):
    """A mean with its confidence interval; low and high are nan where fewer than two values are known."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of `values` and Student's t interval, which covers as often as it says even for few people.

    values: one figure per person; nan are left out. level: in (0, 1), the share of such intervals
    that contain the mean of all people. An end may lie outside a figure's range, such as below 0 for a share.
    """
    if not 0 < check_number(level, "level") < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return Interval(float(known.mean()) if len(known) else np.nan, np.nan, np.nan, len(known))
    from scipy.stats import t

    half = t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return Interval(float(known.mean()), float(known.mean() - half), float(known.mean() + half), len(known))


def paired_test(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Two-sided p of "a and b have one mean": Fisher's randomisation test, by sign flips per person.

    a, b: person → figure; people count whom both have. All flips up to 14 people, else 20,000 from a fixed
    seed. nan for fewer than two people. With n people p is 2^(1−n) or more.
    """
    both = [name for name in a if name in b and not np.isnan(a[name]) and not np.isnan(b[name])]
    if len(both) < 2:
        return np.nan
    from scipy.stats import permutation_test

    difference = np.array([a[name] - b[name] for name in both])
    draws = np.inf if len(both) <= 14 else 20_000
    options = dict(permutation_type="samples", n_resamples=draws, rng=np.random.default_rng(0))
    return float(permutation_test((difference,), np.mean, **options).pvalue)
