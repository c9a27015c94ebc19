"""Claim by claim: does the benchmark show what the paper says? The rule, and the claims it is applied to.

A claim is a list of contrasts that must all hold. A contrast is a weighted sum of a person's figures, and the
claim says that it is above zero. It is clear if `paired_test`, corrected within the claim, gives p ≤ ALPHA.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .intervals import Interval, bootstrap_interval, holm, paired_test
from .study import CHAIN, CONTROLS, RIVALS
from .tables import WANTED, Rows, names_in, protection_name, purifier_name, select

ALPHA = 0.05  # level of the tests
WEAK = "gridpure10"  # a quarter of CHAIN
_BETWEEN = f"from {purifier_name(WEAK)} to {purifier_name(CHAIN)}"
VERDICTS = ("reproduced", "not reproduced", "reversed", "undecided", "not measured yet")


class Contrast(NamedTuple):
    """Something that a claim says to be above zero."""

    text: str
    figure: str  # a column of the results
    cells: tuple[tuple[float, str, str], ...]  # (weight, protection, purifier)


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


def stronger(name: str, figure: str = "ism") -> Contrast:
    """The contrast "`name` does better with more purification", beyond what that does to clean photos."""
    effect = ((1, name, CHAIN), (-1, "none", CHAIN), (-1, name, WEAK), (1, "none", WEAK))
    return Contrast(f"{protection_name(name)} gains {_BETWEEN}: {figure}", figure, effect)


def fades(name: str, figure: str = "ism") -> Contrast:
    """The opposite of `stronger`."""
    cells = tuple((-weight, *names) for weight, *names in stronger(name).cells)
    return Contrast(f"{protection_name(name)} fades {_BETWEEN}: {figure}", figure, cells)


def claims(figure: str = "ism", ours: str = "antipure") -> dict[str, tuple[Contrast, ...]]:
    """The claims, in the paper's order. Without the first none of the others means much.

    figure: the judge of identity, "ism" as in the paper, or another column. ours: the protection in question;
    "antipure-paper" is the paper's own recipe. Where it is compared with CONTROLS, that asks for more than
    the paper.
    """
    others = ("diffpure100", "waifu2x")
    return {
        "protects at all": tuple(better(ours, c, figure=figure) for c in CONTROLS),
        "best after purification": tuple(better(ours, r, figure=figure) for r in RIVALS),
        "lowest LPIPS at equal η": tuple(better(ours, r, "none", "lpips") for r in RIVALS),
        "stronger with more purification": (stronger(ours, figure),),
        "rivals fade with more purification": (fades("aspl", figure),),
        "transfers to other purifiers": tuple(better(ours, c, p, figure) for p in others for c in CONTROLS),
        "survives JPEG": tuple(better(ours, c, "jpeg75", figure) for c in CONTROLS),
    }


def gains(rows: Rows, contrast: Contrast) -> dict[str, float]:
    """person → the contrast's value, in the figure's units, positive as the claim says; the mean over seeds.

    rows: of one customizer. A seed counts if every cell is there and has the figure (a face was found).
    """
    found = {(r["protect"], r["purify"], r["identity"], r["seed"]): r[contrast.figure] for r in rows}
    values: dict[str, list[float]] = {}
    for who, seed in dict.fromkeys((row["identity"], row["seed"]) for row in rows):
        gain = sum(w * found.get((a, b, who, seed), np.nan) for w, a, b in contrast.cells)
        if not np.isnan(gain):
            values.setdefault(who, []).append(WANTED[contrast.figure] * gain)
    return {who: float(np.mean(seeds)) for who, seeds in values.items()}


def findings(rows: Rows, claim: Sequence[Contrast]) -> list[Finding]:
    """What the rows of one customizer say about each contrast of a claim; missing: fewer than two people."""
    known = [gains(rows, contrast) for contrast in claim]
    corrected = holm({k: paired_test(values, dict.fromkeys(values, 0.0)) for k, values in enumerate(known)})
    out = []
    for k, (contrast, values) in enumerate(zip(claim, known, strict=True)):
        interval = bootstrap_interval(list(values.values()))
        if interval.n < 2:
            state = "missing"
        elif corrected[k] > ALPHA:
            state = "unclear"
        else:
            state = "as claimed" if interval.mean > 0 else "the other way"
        out.append(Finding(contrast, interval, corrected[k], state))
    return out


def verdict(states: Sequence[str]) -> str:
    """One of VERDICTS, from the states of a claim's contrasts."""
    if set(states) == {"as claimed"}:
        return "reproduced"
    if set(states) == {"the other way"}:
        return "reversed"
    if "the other way" in states:
        return "not reproduced"
    return "not measured yet" if "missing" in states or not states else "undecided"


def verdicts(rows: Rows, figure: str = "ism", ours: str = "antipure") -> dict[str, str]:
    """claim → verdict, from rows of one customizer; see `claims`."""
    found = {name: findings(rows, claim) for name, claim in claims(figure, ours).items()}
    return {name: verdict([finding.state for finding in some]) for name, some in found.items()}


def missing_cells(rows: Rows, claim: Sequence[Contrast]) -> list[str]:
    """The claim's cells that fewer than two people have: "antipure after jpeg75". rows: as for `gains`."""
    needed = dict.fromkeys((a, b) for contrast in claim for _, a, b in contrast.cells)
    people = {cell: names_in(select(rows, protect=cell[0], purify=cell[1]), "identity") for cell in needed}
    return [f"{protection_name(a)} {_where(b)}" for (a, b), some in people.items() if len(some) < 2]


def finding_lines(found: Mapping[str, Sequence[Finding]]) -> list[dict[str, object]]:
    """Findings by claim as lines of a table."""
    columns = ("claim", "contrast", "people", "gain", "low", "high", "p (Holm)", "state")
    each = [(name, finding) for name, of_claim in found.items() for finding in of_claim]
    lines = [(name, f.contrast.text, f.interval.n, *f.interval[:3], f.p, f.state) for name, f in each]
    return [dict(zip(columns, line, strict=True)) for line in lines]


def _where(purify: str) -> str:
    return purifier_name(purify) if purify == "none" else f"after {purifier_name(purify)}"
