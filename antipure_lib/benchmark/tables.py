"""Rows of the benchmark: which to compare, their means over people, and how methods are shown."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..protections.registry import PROTECTIONS
from ..purifiers.registry import PURIFIERS, parts_of
from .draws import draws_of, in_words
from .intervals import Interval, t_interval
from .rows import FIGURES

Rows = Sequence[Mapping[str, object]]
WANTED = {name: wanted for name, (wanted, _) in FIGURES.items()}  # by a protector: +1 large, −1 small


def select(rows: Rows, **where: object) -> list[Mapping[str, object]]:
    """The rows whose columns have these values; a list, tuple or set means any of its members.

    >>> select(rows, customize="lora", purify=("none", "jpeg75"))
    """
    kinds = (list, tuple, set)
    wanted = {name: value if isinstance(value, kinds) else (value,) for name, value in where.items()}
    return [row for row in rows if all(row[name] in values for name, values in wanted.items())]


def comparable(rows: Rows) -> list[Mapping[str, object]]:
    """The rows of those pairs of person and seed that every method has: means then compare like with like.

    A method is a protection, purifier and customizer. It is left out if fewer than two people have it, or
    fewer than half of the best covered method's. Otherwise an unfinished method would shrink the common set.
    """
    keys = [((r["protect"], r["purify"], r["customize"]), (r["identity"], r["seed"])) for r in rows]
    units: dict[tuple, set[tuple]] = {}
    for method, unit in keys:
        units.setdefault(method, set()).add(unit)
    people = {method: len({person for person, _ in own}) for method, own in units.items()}
    least = max(2, max(people.values(), default=0) / 2)
    several = {method: own for method, own in units.items() if people[method] >= least} or units
    shared = set.intersection(*several.values()) if several else set()
    both = zip(rows, keys, strict=True)
    return [row for row, (method, unit) in both if method in several and unit in shared]


def by_person(rows: Rows, figure: str) -> dict[str, float]:
    """identity → mean of a figure over that person's rows (seeds), nan left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["identity"], []).append(row[figure])
    known = {name: [v for v in values if not np.isnan(v)] for name, values in found.items()}
    return {name: float(np.mean(values)) if values else np.nan for name, values in known.items()}


def interval_of(rows: Rows, figure: str) -> Interval:
    """Mean over people and its 95 % t interval."""
    return t_interval(list(by_person(rows, figure).values()))


def protection_name(name: str) -> str:
    """How a protection is shown: the title in its record; a name that has no record as it is."""
    return PROTECTIONS[name].title or name if name in PROTECTIONS else name


def purifier_name(name: str) -> str:
    """How a cell's purifier is shown: title, numbers, draw and copies, as "GrIDPure 2 × 20, draw 2"."""
    try:
        draws = draws_of(name)
    except ValueError:  # a table may name one that no longer exists
        return name
    titles = [
        [PURIFIERS[part.kind].title or part.kind, " × ".join(map(str, part.numbers.values()))]
        for part in parts_of(draws.name)
    ]
    return " + ".join(" ".join(filter(None, words)) for words in titles) + in_words(draws)


def names_in(rows: Rows, column: str) -> list[str]:
    """The values of a column, each once, in the rows' order."""
    return list(dict.fromkeys(row[column] for row in rows))
