"""How many people the study needs, and which interval keeps its promise: simulation from a pilot's spread.

    python -m tools.study.power [other.csv]    # default: data/results/study.csv

A contrast is the difference of two pass rates per person. The pilot gives its spread over people. A part of
that is the noise of a finite number of generated images, p(1 − p)/images per pass rate. More seeds lower this
part and leave the rest. What a seed changes besides isn't known from one seed, so the gain of a second is at
least this. Intervals: t, percentile bootstrap, BCa (Efron and Tibshirani 1993).
"""

from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import norm, t

from antipure_lib.benchmark.rows import read_rows
from tools import command_line

TABLE = Path(__file__).resolve().parents[2] / "data/results/study.csv"
CHAIN, MARGIN, LEVEL = "gridpure2x20", 0.10, 0.05
IMAGES = 32  # generated images behind a pass rate: two prompts of 16
TRIALS, DRAWS = 1000, 1000
PEOPLE, SEEDS = (8, 16, 24), (1, 2, 4)
FAMILY = 19  # contrasts that share the level


def differences(rows: list[dict]) -> tuple[np.ndarray, float]:
    """Differences of pass rates after CHAIN between all pairs of protections, each pair's mean taken off.

    Of each person's first seed. Returns them, and the standard deviation that the number of images explains.
    """
    found = {
        (row["protect"], row["identity"]): row["same_person"]
        for row in sorted(rows, key=lambda row: -row["seed"])
        if row["purify"] == CHAIN and row["customize"] == "lora"
    }
    people = sorted({who for _, who in found})
    spread, noise = [], []
    for a, b in combinations(sorted({name for name, _ in found}), 2):
        pairs = [(found[a, who], found[b, who]) for who in people if (a, who) in found and (b, who) in found]
        if len(pairs) >= 4:
            gains = np.array([p - q for p, q in pairs])
            spread.extend((gains - gains.mean()) * np.sqrt(len(gains) / (len(gains) - 1)))
            noise.extend((p * (1 - p) + q * (1 - q)) / IMAGES for p, q in pairs)
    return np.array(spread), float(np.sqrt(np.mean(noise)))


def draw(spread: np.ndarray, noise: float, gain: float, people: int, seeds: int, rng) -> np.ndarray:
    """TRIALS × people simulated contrasts with this mean gain."""
    rest = np.sqrt(max(0.0, 1 - noise**2 / spread.var()))  # of the spread, without the images' noise
    own = rest * (rng.choice(spread, (TRIALS, people)) - spread.mean())
    return gain + own + rng.normal(0, noise / np.sqrt(seeds), (TRIALS, people))


def student(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval of each row's mean."""
    n = values.shape[1]
    half = t.ppf(1 - level / 2, n - 1) * values.std(1, ddof=1) / np.sqrt(n)
    return values.mean(1) - half, values.mean(1) + half


def percentile(values: np.ndarray, level: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """The percentile bootstrap's interval."""
    means = _resampled(values, rng)
    return np.quantile(means, level / 2, axis=1), np.quantile(means, 1 - level / 2, axis=1)


def bca(values: np.ndarray, level: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """The bias-corrected and accelerated interval (Efron and Tibshirani 1993, 14.3)."""
    means, n = _resampled(values, rng), values.shape[1]
    centre = values.mean(1, keepdims=True)
    bias = norm.ppf(((means < centre).mean(1) + 0.5 * (means == centre).mean(1)).clip(1e-3, 1 - 1e-3))
    left_out = (values.sum(1, keepdims=True) - values) / (n - 1)
    apart = left_out.mean(1, keepdims=True) - left_out
    skew = (apart**3).sum(1) / (6 * (apart**2).sum(1).clip(1e-12) ** 1.5)
    ends = []
    for share in (level / 2, 1 - level / 2):
        z = bias + norm.ppf(share)
        at = norm.cdf(bias + z / (1 - skew * z))
        ends.append(np.array([np.quantile(row, p) for row, p in zip(means, at, strict=True)]))
    return ends[0], ends[1]


def _resampled(values: np.ndarray, rng) -> np.ndarray:
    index = rng.integers(values.shape[1], size=(DRAWS, values.shape[1]))
    return values[:, index].mean(2)


def verdicts(low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    """Shares of the three verdicts of docs/study.md, for a claim of a gain."""
    contradicted = high < MARGIN
    reproduced = (low > 0) & ~contradicted
    return dict(
        reproduced=float(reproduced.mean()),
        contradicted=float(contradicted.mean()),
        undecided=float((~reproduced & ~contradicted).mean()),
    )


def main(table: Path) -> None:
    spread, noise = differences(read_rows(table))
    print(f"{len(spread)} differences; spread {spread.std():.3f}, of which images' noise {noise:.3f}")
    print("\ncoverage of the 95 % interval (a gain of 0.10, one seed)\npeople  t      percentile  BCa")
    for n in PEOPLE:
        rng = np.random.default_rng(n)
        values = draw(spread, noise, MARGIN, n, 1, rng)
        ends = student(values, LEVEL), percentile(values, LEVEL, rng), bca(values, LEVEL, rng)
        shares = [((low <= MARGIN) & (MARGIN <= high)).mean() for low, high in ends]
        print(f"{n:6}  " + "       ".join(f"{share:.3f}" for share in shares))
    print(f"\nverdicts, t at level {LEVEL}/{FAMILY} (gain: reproduced, contradicted, undecided)")
    for n in PEOPLE:
        for k in SEEDS:
            rng = np.random.default_rng(100 * n + k)
            line = []
            for gain in (0.0, 0.1, 0.2, 0.3):
                found = verdicts(*student(draw(spread, noise, gain, n, k, rng), LEVEL / FAMILY))
                line.append(f"{gain:.1f}: " + " ".join(f"{share:.2f}" for share in found.values()))
            print(f"{n} people × {k} seeds   " + "   ".join(line))


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    main(parser.parse_args().table)
