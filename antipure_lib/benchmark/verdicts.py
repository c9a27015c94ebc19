"""Claim by claim: does the benchmark show what the paper says? The rule, and the claims it is applied to.

A claim is a list of contrasts that must all hold. A contrast is a weighted sum of a person's figures, signed
so that the claim says "above zero". It is clear if the exact sign-flip test over people, Holm-corrected
within the claim, gives p ≤ 0.05. The verdict follows from the contrasts by `verdict`, whatever the claim.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .intervals import Interval, bootstrap_interval, holm, paired_test
from .tables import POSTED, WANTED, Rows, protection_name

CHAIN = "gridpure2x20"  # the paper's purification, 40 iterations

RIVALS = ("advdm", "mist", "aspl", "simac")

CONTROLS = ("none", "random")

VERDICTS = ("reproduced", "not reproduced", "reversed", "undecided", "not measured yet")


class Contrast(NamedTuple):
    """Something that a claim says to be above zero."""

    text: str
    figure: str  # a column of the results
    cells: tuple[
        tuple[float, str, str], ...
    ]  # (weight, protection, purifier); +1 where the protector shall gain


class Finding(NamedTuple):
    """What the rows say about one contrast."""

    contrast: Contrast
    interval: Interval  # of the gain, over people, in the figure's units
    p: float  # Holm-corrected within its claim
    state: str  # "as claimed", "the other way", "unclear" or "missing"


def better(ours: str, other: str, purify: str = CHAIN, figure: str = "ism") -> Contrast:
    """The contrast "the protector does better with `ours` than with `other`, after this purifier"."""
    text = f"{protection_name(ours)} beats {protection_name(other)} {_where(purify)}: {figure}"
    return Contrast(text, figure, ((1, ours, purify), (-1, other, purify)))


def stronger(name: str, weak: str = "gridpure10", strong: str = CHAIN, figure: str = "ism") -> Contrast:
    """The contrast "more purification helps who used `name`", beyond what it does to clean photos."""
    effect = ((1, name, strong), (-1, "none", strong), (-1, name, weak), (1, "none", weak))
    return Contrast(f"{name} gains from {weak} to {strong}: {figure}", figure, effect)


def fades(name: str, weak: str = "gridpure10", strong: str = CHAIN, figure: str = "ism") -> Contrast:
    """The opposite of `stronger`."""
    same = stronger(name, weak, strong, figure)
    cells = tuple((-weight, *names) for weight, *names in same.cells)
    return Contrast(f"{name} fades from {weak} to {strong}: {figure}", figure, cells)


def claims(figure: str = "ism", ours: str = "antipure") -> dict[str, tuple[Contrast, ...]]:
    """The claims, in the paper's order; the first is what any of them stands on.

    figure: the judge of identity, "ism" as in the paper, or another column. ours: the protection that they
    are made for; "antipure-paper" is the paper's own recipe. "At all" and what follows from it
    (other purifiers, JPEG) ask for more than the paper: to do better than clean photos and than random signs.
    """
    return {
        "protects at all": tuple(better(ours, c, figure=figure) for c in CONTROLS),
        "best after purification": tuple(better(ours, r, figure=figure) for r in RIVALS),
        "lowest LPIPS at equal η": tuple(better(ours, r, "none", "lpips") for r in RIVALS),
        "stronger with more purification": (stronger(ours, figure=figure),),
        "rivals fade with more purification": (fades("aspl", figure=figure),),
        "transfers to other purifiers": tuple(
            better(ours, c, p, figure) for p in ("diffpure100", "waifu2x") for c in CONTROLS
        ),
        "survives JPEG": tuple(better(ours, c, "jpeg75", figure) for c in CONTROLS),
    }


def gains(rows: Rows, contrast: Contrast) -> dict[str, float]:
    """person → the contrast's value, in the figure's units, positive as the claim says.

    rows: of one customizer. A person's seeds are averaged; only seeds count for which every cell is there, so
    that like is compared with like. People without such a seed, or without a figure (no face found), are left
    out.
    """
    found = {
        (row["protect"], row["purify"], row["identity"], row["seed"]): row[contrast.figure] for row in rows
    }
    values: dict[str, list[float]] = {}
    for identity, seed in dict.fromkeys((row["identity"], row["seed"]) for row in rows):
        parts = [
            weight * found.get((protect, purify, identity, seed), np.nan)
            for weight, protect, purify in contrast.cells
        ]
        if not np.isnan(parts).any():
            values.setdefault(identity, []).append(WANTED[contrast.figure] * sum(parts))
    return {identity: float(np.mean(seeds)) for identity, seeds in values.items()}


def findings(rows: Rows, claim: Sequence[Contrast], alpha: float = 0.05) -> list[Finding]:
    """What the rows of one customizer say about each contrast of a claim; see `Finding`.

    A contrast with fewer than two people is missing. Raises ValueError for an alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}; the usual one is 0.05")
    known = [gains(rows, contrast) for contrast in claim]
    corrected = holm({k: paired_test(values, dict.fromkeys(values, 0.0)) for k, values in enumerate(known)})
    out = []
    for k, (contrast, values) in enumerate(zip(claim, known, strict=True)):
        interval = bootstrap_interval(list(values.values()))
        if interval.n < 2:
            state = "missing"
        elif corrected[k] > alpha:
            state = "unclear"
        else:
            state = "as claimed" if interval.mean > 0 else "the other way"
        out.append(Finding(contrast, interval, corrected[k], state))
    return out


def verdict(states: Sequence[str]) -> str:
    """One of VERDICTS, from the states of a claim's contrasts.

    reproduced: all are as claimed. reversed: all are clearly the other way. not reproduced: at least one is
    clearly the other way. Otherwise not measured yet if one is missing, and undecided if one is unclear.
    """
    if set(states) == {"as claimed"}:
        return "reproduced"
    if set(states) == {"the other way"}:
        return "reversed"
    if "the other way" in states:
        return "not reproduced"
    return "not measured yet" if "missing" in states or not states else "undecided"


def verdicts(rows: Rows, figure: str = "ism", alpha: float = 0.05, ours: str = "antipure") -> dict[str, str]:
    """claim → verdict, from rows of one customizer. figure, ours: see `claims`."""
    return {
        name: verdict([finding.state for finding in findings(rows, claim, alpha)])
        for name, claim in claims(figure, ours).items()
    }


def missing_cells(rows: Rows, claim: Sequence[Contrast]) -> list[str]:
    """The cells that a claim needs and fewer than two people have, as "protection after purifier".

    rows: of one customizer.
    """
    people: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        people.setdefault((row["protect"], row["purify"]), set()).add(row["identity"])
    needed = dict.fromkeys((protect, purify) for c in claim for _, protect, purify in c.cells)
    return [
        f"{protection_name(protect)} {_where(purify)}"
        for protect, purify in needed
        if len(people.get((protect, purify), ())) < 2
    ]


def finding_lines(found: Mapping[str, Sequence[Finding]]) -> list[dict[str, object]]:
    """Findings by claim as lines of a table."""
    return [
        {
            "claim": name,
            "contrast": finding.contrast.text,
            "people": finding.interval.n,
            "gain": finding.interval.mean,
            "low": finding.interval.low,
            "high": finding.interval.high,
            "p (Holm)": finding.p,
            "state": finding.state,
        }
        for name, of_claim in found.items()
        for finding in of_claim
    ]


def _where(purify: str) -> str:
    return POSTED if purify == "none" else f"after {purify}"
