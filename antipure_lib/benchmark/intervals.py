"""How sure a mean is, and whether two methods differ: bootstrap intervals, exact paired tests, Holm.

The unit is the person: figures of several seeds are averaged within a person first, since one person's photos
with another seed are no new evidence about people.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with its confidence interval; low and high are nan where fewer than two values are known."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of `values` and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    values: one figure per person; nan are left out. Same seed, same interval.
    Raises ValueError for a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; the usual one is 0.95")
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return Interval(float(known.mean()) if len(known) else np.nan, np.nan, np.nan, len(known))
    from scipy.stats import bootstrap

    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=draws,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(known.mean()), float(found.low), float(found.high), len(known))


def paired_test(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Two-sided p of "a and b have one mean", from all sign flips of the differences per person.

    a, b: person → figure; only people whom both know count. Exact up to 14 people (2^14 sign flips), for more
    of them 20,000 flips from a fixed seed. nan for fewer than two people. With n people p is 2^(1−n) or more.
    (Fisher's randomisation test for paired data.)
    """
    both = [name for name in a if name in b and not np.isnan(a[name]) and not np.isnan(b[name])]
    if len(both) < 2:
        return np.nan
    from scipy.stats import permutation_test

    difference = np.array([a[name] - b[name] for name in both])
    found = permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if len(both) <= 14 else 20_000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted so that one false alarm among all of them has the stated probability (Holm 1979).

    The k-th smallest of m is multiplied by m − k + 1; no adjusted value is below one before it, nor above 1.
    nan stay nan and don't count.
    """
    adjusted = dict(p_values)
    ordered = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    largest = 0.0
    for k, (p, name) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - k)))
        adjusted[name] = largest
    return adjusted
