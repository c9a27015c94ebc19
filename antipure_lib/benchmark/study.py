"""What the study of data/results/ consists of, and how much of it a table holds.

Each part is a grid. Everything is judged at one budget and one number of model calls, every protection with
the best of the settings that a sweep tried on other people. The parts stand in the order of what they tell; a
stopped study has finished the first ones.
"""

from collections.abc import Iterable, Mapping, Sequence

from ..protections.registry import PROTECTIONS
from .cells import Cell, plan
from .rows import KEYS

# The best setting of each protection in data/results/sweep.jsonl, by what a latent model sees of it after
# purification; those that aren't named have their defaults, because the sweep hasn't tried them or found
# nothing better. The ablations of AntiPure take its steps; antipure-paper stays as the paper has it.
# pixel-ddpm keeps t < 10, which makes it AntiPure without guidance; over all t, as AdvDM has it, it leaves
# more.
AVERAGED = dict(momentum=0.9, noise_samples=4, step_size=4 / 255)

TUNED = {
    "advdm": AVERAGED | dict(step_size=2 / 255),
    "photoguard": dict(momentum=0.9),
    "fsmg": AVERAGED | dict(step_size=2 / 255),
    "aspl": AVERAGED | dict(step_size=2 / 255),
    "mist": AVERAGED | dict(weight=3.0),
    "simac": dict(momentum=0.9, interference=10.0),
    "pixel-ddpm": AVERAGED,
    "pfg": dict(patch=4, momentum=0.0),
    "etg": AVERAGED | dict(t_err=900),
    "antipure": AVERAGED,
    "antipure-pfg": AVERAGED,
    "antipure-etg": AVERAGED,
    "end-to-end": dict(iterations=4),
}

SETTINGS = dict(eta=16 / 255, steps=50, samples=16, learning=None, options=TUNED)

PEOPLE = 8  # the first so many of `identities()`

MAIN = ["none", "random", "antipure", "antipure-paper"]

RIVALS = ["advdm", "mist", "aspl", "simac"]

PAPER = MAIN + RIVALS

ABLATION = ["pixel-ddpm", "pfg", "etg", "antipure-pfg", "antipure-etg", "end-to-end"]

OTHERS = [name for name in PROTECTIONS if name not in PAPER + ABLATION]

CHAIN = ["none", "gridpure2x20"]

PARTS = {
    "main": dict(protections=MAIN, purifiers=CHAIN),
    "rivals": dict(protections=RIVALS, purifiers=CHAIN),
    "iterations": dict(
        protections=["none", "random", "antipure", "aspl", "simac"],
        purifiers=["gridpure10", "gridpure20", "gridpure30"],
    ),
    "ablation": dict(protections=ABLATION, purifiers=CHAIN),
    "dreambooth": dict(
        protections=["none", "random", "antipure"], purifiers=CHAIN, customizers=["dreambooth"], seeds=[0, 1]
    ),
    "dreambooth rivals": dict(
        protections=["antipure-paper", *RIVALS], purifiers=CHAIN, customizers=["dreambooth"]
    ),
    "transfer": dict(protections=PAPER, purifiers=["jpeg75", "diffpure100", "waifu2x"]),
    "full grid": dict(
        protections=PAPER + ABLATION + OTHERS,
        purifiers=[*CHAIN, "jpeg75", "diffpure100", "waifu2x"],
        customizers=["lora", "dreambooth"],
        seeds=[0, 1],
    ),
}


def cells_of(part: str, people: Sequence[str], seeds: Sequence[int] | None = None) -> list[Cell]:
    """The cells of one part for these people; LoRA and seed 0 where the part doesn't say.

    seeds: others than the part's, to repeat it.
    """
    grid = dict(customizers=["lora"], seeds=[0]) | PARTS[part]
    return plan(identities=people, **(grid if seeds is None else grid | dict(seeds=seeds)))


def all_cells(
    people: Sequence[str], parts: Iterable[str] = PARTS, seeds: Sequence[int] | None = None
) -> list[Cell]:
    """The cells of the named parts, each once, a part after the other. seeds: see `cells_of`."""
    return list(dict.fromkeys(cell for part in parts for cell in cells_of(part, people, seeds)))


def coverage(
    rows: Sequence[Mapping[str, object]],
    people: Sequence[str],
    parts: Iterable[str] = PARTS,
    seeds: Sequence[int] | None = None,
) -> list[dict[str, object]]:
    """How much of each part a table holds: a line a part, with its cells and its people.

    A cell that two parts share counts in both. A person counts who has every cell of the part. seeds: see
    `cells_of`.
    """
    done = {tuple(row[name] for name in KEYS) for row in rows}
    lines = []
    for part in parts:
        cells = cells_of(part, people, seeds)
        missing = {cell.identity for cell in cells if tuple(cell) not in done}
        lines.append(
            {
                "part": part,
                "cells": len(cells),
                "finished": len(done.intersection(cells)),
                "people planned": len(people),
                "people with all": len(set(people) - missing),
            }
        )
    return lines
