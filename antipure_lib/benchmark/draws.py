"""Other draws of a purification's noise, and several copies: what an abuser who tries more than once has.

A cell's purifier may end in `@k` and then in `*n`. gridpure2x20@1 is gridpure2x20 with the noise of draw 1.
Without a mark it is draw 0. gridpure2x20*3 purifies each photo three times, with draws 0, 1 and 2.
The model then learns from all of them.
"""

import re
from typing import NamedTuple

from ..purifiers.registry import parts_of


class Draws(NamedTuple):
    """Which purifications of each photo a cell learns from."""

    name: str  # "gridpure2x20", as `purify` takes it
    first: int = 0
    copies: int = 1


def draws_of(purify: str) -> Draws:
    """A cell's purifier, read: "gridpure2x20@1*2" → Draws("gridpure2x20", 1, 2).

    Raises ValueError for another form, for no copies, and as `purifiers.registry.parts_of`.
    """
    match = re.fullmatch(r"([^@*]+)(?:@(\d{1,6}))?(?:\*([1-9]\d{0,2}))?", purify)
    if not match:
        raise ValueError(
            f"purify: '{purify}' must be a purifier, then @draw and *copies, as gridpure2x20@1*2"
        )
    found = Draws(match[1], int(match[2] or 0), int(match[3] or 1))
    parts_of(found.name)
    return found


def in_words(draws: Draws) -> str:
    """What follows the purifier's title: ", draw 2, 3 copies"; nothing for one copy of draw 0."""
    draw = f", draw {draws.first + 1}" if draws.first else ""
    return draw + (f", {draws.copies} copies" if draws.copies > 1 else "")
