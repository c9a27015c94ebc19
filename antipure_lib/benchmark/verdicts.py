"""Claim by claim: does the benchmark show what the paper says? The rule of docs/study.md, and the claims.

A claim is a list of contrasts that must all hold. A contrast is a weighted sum of a person's figures, and the
claim says that it is above zero. Its t interval decides; all contrasts of the design share one level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .intervals import Interval, t_interval
from .study import CHAIN, RIVALS
from .tables import WANTED, Rows, names_in, protection_name, purifier_name, select

ALPHA = 0.05  # level of all contrasts together
FAMILY = 19  # contrasts in the table of docs/study.md; the paper's six claims have 14 of them
LEVEL = 1 - ALPHA / FAMILY  # of one contrast's interval (Bonferroni)
MATTERS = {"same_person": 0.10, "lpips": 0.01}  # the smallest gain that matters
WEAK = "gridpure10"  # a quarter of CHAIN
OTHERS = ("diffpure100", "waifu2x")
VERDICTS = ("reproduced", "contradicted", "undecided", "not measured yet")


class Contrast(NamedTuple):
    """Something that a claim says to be above zero."""

    text: str
    figure: str  # a column of the results
    cells: tuple[tuple[float, str, str], ...]  # (weight, protection, purifier)


class Ruling(NamedTuple):
    """What the rule of docs/study.md says about one contrast."""

    contrast: Contrast
    interval: Interval  # of the gain, over people, at LEVEL
    state: str  # "above" zero, "below" what matters, "unclear" or "missing"


def better(ours: str, other: str, purify: str = CHAIN, figure: str = "same_person") -> Contrast:
    """The contrast "the protector does better with `ours` than with `other`, after this purifier"."""
    text = f"{protection_name(ours)} over {protection_name(other)} {_where(purify)}"
    return Contrast(text, figure, ((1, ours, purify), (-1, other, purify)))


def overtakes(ours: str, other: str) -> Contrast:
    """The contrast "what `ours` is ahead of `other` grows from WEAK to CHAIN"."""
    way = f"from {purifier_name(WEAK)} to {purifier_name(CHAIN)}"
    text = f"{protection_name(ours)} gains on {protection_name(other)} {way}"
    return Contrast(
        text, "same_person", ((1, ours, CHAIN), (-1, other, CHAIN), (-1, ours, WEAK), (1, other, WEAK))
    )


def claims(ours: str = "antipure") -> dict[str, tuple[Contrast, ...]]:
    """The paper's six claims about `ours`, in the order of docs/study.md.

    ours: "antipure-paper" is the paper's plain sum. Without a guidance it is named `ours`-pfg, `ours`-etg.
    """
    return {
        "protects after purification": (better(ours, "none"),),
        "is the best after purification": tuple(better(ours, rival) for rival in RIVALS),
        "is the least visible": tuple(better(ours, rival, "none", "lpips") for rival in RIVALS),
        "overtakes ASPL as purification goes on": (overtakes(ours, "aspl"),),
        "transfers to other purifiers": tuple(better(ours, "none", purifier) for purifier in OTHERS),
        "needs both guidances": tuple(better(ours, f"{ours}-{part}") for part in ("pfg", "etg")),
    }


def gains(rows: Rows, contrast: Contrast) -> dict[str, float]:
    """person → the contrast's value, in the figure's units, positive as the claim says; the mean over seeds.

    rows: of one customizer. A seed counts if every cell is there and has the figure.
    """
    found = {(r["protect"], r["purify"], r["identity"], r["seed"]): r[contrast.figure] for r in rows}
    values: dict[str, list[float]] = {}
    for who, seed in dict.fromkeys((row["identity"], row["seed"]) for row in rows):
        gain = sum(w * found.get((a, b, who, seed), np.nan) for w, a, b in contrast.cells)
        if not np.isnan(gain):
            values.setdefault(who, []).append(WANTED[contrast.figure] * gain)
    return {who: float(np.mean(seeds)) for who, seeds in values.items()}


def rulings(rows: Rows, claim: Sequence[Contrast]) -> list[Ruling]:
    """What the rows of one customizer say about each contrast of a claim; missing: fewer than two people."""
    out = []
    for contrast in claim:
        interval = t_interval(list(gains(rows, contrast).values()), LEVEL)
        if interval.n < 2:
            state = "missing"
        elif interval.high < MATTERS[contrast.figure]:
            state = "below"
        else:
            state = "above" if interval.low > 0 else "unclear"
        out.append(Ruling(contrast, interval, state))
    return out


def verdict(states: Sequence[str]) -> str:
    """One of VERDICTS, from the states of a claim's contrasts."""
    if "below" in states:
        return "contradicted"
    if "missing" in states or not states:
        return "not measured yet"
    return "reproduced" if set(states) == {"above"} else "undecided"


def verdicts(rows: Rows, ours: str = "antipure") -> dict[str, str]:
    """claim → verdict, from rows of one customizer; see `claims`."""
    found = {name: rulings(rows, claim) for name, claim in claims(ours).items()}
    return {name: verdict([ruling.state for ruling in some]) for name, some in found.items()}


def missing_cells(rows: Rows, claim: Sequence[Contrast]) -> list[str]:
    """The claim's cells that fewer than two people have: "AntiPure after JPEG 75". rows: as for `gains`."""
    needed = dict.fromkeys((a, b) for contrast in claim for _, a, b in contrast.cells)
    people = {cell: names_in(select(rows, protect=cell[0], purify=cell[1]), "identity") for cell in needed}
    return [f"{protection_name(a)} {_where(b)}" for (a, b), some in people.items() if len(some) < 2]


def _where(purify: str) -> str:
    return purifier_name(purify) if purify == "none" else f"after {purifier_name(purify)}"
