"""Tables of the benchmark: means with intervals over people, and tests of AntiPure against the others."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .intervals import Interval, bootstrap_interval, holm, paired_test

Rows = Sequence[Mapping[str, object]]

# How tables and figures write the absence of a protection and of a purifier; in results both are "none".
CLEAN, POSTED = "clean photos", "as posted"

# What a protector wants of a figure: +1 large, −1 small.
WANTED = {
    "ism": -1,
    "distance": 1,
    "same_person": -1,
    "fdfr": 1,
    "frechet": 1,
    "brisque": 1,
    "lpips": -1,
    "flip": -1,
    "ssim": 1,
    "psnr": 1,
    "psnr_learned": -1,
    "survival": 1,
}


def select(rows: Rows, **where: object) -> list[Mapping[str, object]]:
    """The rows whose columns have these values; a list, tuple or set means any of its members.

    >>> select(rows, customize="lora", purify=("none", "jpeg75"))
    """
    kinds = (list, tuple, set)
    wanted = {name: value if isinstance(value, kinds) else (value,) for name, value in where.items()}
    return [row for row in rows if all(row[name] in values for name, values in wanted.items())]


def comparable(rows: Rows) -> list[Mapping[str, object]]:
    """The rows of those pairs of person and seed that every method has, so that means compare like with like.

    A method is a protection, purifier and customizer. One that fewer than two people have, or fewer than half
    as many as have the best covered one, is left out where others have more: the first people of an
    unfinished method would cost the others most of theirs.
    """
    units: dict[tuple, set[tuple]] = {}
    for row in rows:
        method = (row["protect"], row["purify"], row["customize"])
        units.setdefault(method, set()).add((row["identity"], row["seed"]))
    people = {method: len({person for person, _ in own}) for method, own in units.items()}
    least = max(2, max(people.values(), default=0) / 2)
    several = {method: own for method, own in units.items() if people[method] >= least} or units
    shared = set.intersection(*several.values()) if several else set()
    return [
        row
        for row in rows
        if (row["protect"], row["purify"], row["customize"]) in several
        and (row["identity"], row["seed"]) in shared
    ]


def by_person(rows: Rows, figure: str) -> dict[str, float]:
    """identity → mean of a figure over that person's rows (seeds), nan left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["identity"], []).append(row[figure])
    known = {name: [v for v in values if not np.isnan(v)] for name, values in found.items()}
    return {name: float(np.mean(values)) if values else np.nan for name, values in known.items()}


def interval_of(rows: Rows, figure: str) -> Interval:
    """Mean over people and its 95 % bootstrap interval."""
    return bootstrap_interval(list(by_person(rows, figure).values()))


def comparison(rows: Rows, figure: str, ours: str = "antipure") -> dict[str, float]:
    """protection → p of "it and `ours` have one mean of the figure", paired by person, Holm-corrected."""
    names = _in_order(row["protect"] for row in rows)
    mine = by_person(select(rows, protect=ours), figure)
    return holm(
        {
            name: paired_test(mine, by_person(select(rows, protect=name), figure))
            for name in names
            if name != ours
        }
    )


def result_table(
    rows: Rows,
    figures: Sequence[str] = ("ism", "distance", "fdfr", "frechet", "brisque"),
    tested: str = "ism",
    ours: str = "antipure",
) -> list[dict[str, str]]:
    """One line a protection: each figure's mean and 95 % interval, and the corrected p of `tested`.

    rows: of one purifier and one customizer; see `select`. people: those who have a value of `tested`, which
    somebody without a single generated face hasn't. An arrow says what the protector wants.
    """
    p = comparison(rows, tested, ours)
    lines = []
    for name in _in_order(row["protect"] for row in rows):
        own = select(rows, protect=name)
        line = {"protection": protection_name(name), "people": str(interval_of(own, tested).n)}
        for figure in figures:
            arrow = "↑" if WANTED[figure] > 0 else "↓"
            line[f"{figure} {arrow}"] = write_interval(interval_of(own, figure))
        line[f"p ({tested}, against {ours})"] = "" if name not in p or np.isnan(p[name]) else f"{p[name]:.3f}"
        lines.append(line)
    return lines


def protection_name(name: str) -> str:
    """How a protection is shown: "none" means that photos were learned as they are."""
    return CLEAN if name == "none" else name


def purifier_name(name: str) -> str:
    """How a purifier is shown: "none" means that photos were learned as they were posted."""
    return POSTED if name == "none" else name


def write_interval(interval: Interval) -> str:
    """ "0.612 [0.590, 0.633]", with as many decimals as its size asks for."""
    if np.isnan(interval.mean):
        return "–"
    decimals = 3 if abs(interval.mean) < 10 else 1
    text = f"{interval.mean:.{decimals}f}"
    if not np.isnan(interval.low):
        text += f" [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"
    return text


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
