"""What the study of data/results/ consists of, and how much of it a table holds.

Each part is a grid, the most important first. Everything is judged at one budget and one number of model
calls. Every protection has the best of the settings that a sweep tried on other people.
"""

from collections.abc import Iterable, Mapping, Sequence

from .rows import KEYS, Cell, plan

# The best setting of each protection in data/results/sweep.jsonl: a latent model sees most of it after
# purification. A protection that isn't named has its defaults: the sweep hasn't tried it, or found nothing
# better. AntiPure's ablations take its steps; antipure-paper stays as the paper has it.
# pixel-ddpm keeps t < 10, so it is AntiPure without guidance. Over all t, as in AdvDM, it leaves more.
AVERAGED = dict(momentum=0.9, noise_samples=4, step_size=4 / 255)
TUNED = {
    **dict.fromkeys(("advdm", "fsmg", "aspl"), AVERAGED | dict(step_size=2 / 255)),
    **dict.fromkeys(("pixel-ddpm", "antipure", "antipure-pfg", "antipure-etg"), AVERAGED),
    "photoguard": dict(momentum=0.9),
    "mist": AVERAGED | dict(weight=3.0),
    "simac": dict(momentum=0.9, interference=10.0),
    "pfg": dict(patch=4, momentum=0.0),
    "etg": AVERAGED | dict(t_err=900),
    "end-to-end": dict(iterations=4),
}

SETTINGS = dict(eta=16 / 255, steps=50, samples=16, learning=None, options=TUNED)

PEOPLE = 8  # the first so many of `identities()`
CHAIN = "gridpure2x20"  # the paper's purification, 2 rounds of 20 iterations
CONTROLS = ["none", "random"]
RIVALS = ["advdm", "mist", "aspl", "simac"]
PAPER = [*CONTROLS, "antipure", "antipure-paper", *RIVALS]
ABLATION = ["pixel-ddpm", "pfg", "etg", "antipure-pfg", "antipure-etg", "end-to-end"]
OTHERS = ["photoguard", "fsmg"]

PARTS = {
    "main": dict(protections=[*CONTROLS, "antipure", "antipure-paper"]),
    "rivals": dict(protections=RIVALS),
    "iterations": dict(
        protections=[*CONTROLS, "antipure", "aspl", "simac"],
        purifiers=["gridpure10", "gridpure20", "gridpure30"],
    ),
    "ablation": dict(protections=ABLATION),
    "dreambooth": dict(protections=[*CONTROLS, "antipure"], customizers=["dreambooth"], seeds=[0, 1]),
    "dreambooth rivals": dict(protections=["antipure-paper", *RIVALS], customizers=["dreambooth"]),
    "transfer": dict(protections=PAPER, purifiers=["jpeg75", "diffpure100", "waifu2x"]),
    "full grid": dict(
        protections=PAPER + ABLATION + OTHERS,
        purifiers=["none", CHAIN, "jpeg75", "diffpure100", "waifu2x"],
        customizers=["lora", "dreambooth"],
        seeds=[0, 1],
    ),
}


def cells_of(part: str, people: Sequence[str], seeds: Sequence[int] | None = None) -> list[Cell]:
    """The cells of one part for these people. seeds: in place of the part's own, to repeat it.

    A part that doesn't say otherwise has no purification and CHAIN, LoRA and seed 0.
    """
    grid = dict(purifiers=["none", CHAIN], customizers=["lora"], seeds=[0]) | PARTS[part]
    return plan(identities=people, **(grid if seeds is None else grid | dict(seeds=seeds)))


def all_cells(
    people: Sequence[str], parts: Iterable[str] = PARTS, seeds: Sequence[int] | None = None
) -> list[Cell]:
    """The cells of the named parts, each once, part by part."""
    return list(dict.fromkeys(cell for part in parts for cell in cells_of(part, people, seeds)))


def coverage(
    rows: Sequence[Mapping[str, object]],
    people: Sequence[str],
    parts: Iterable[str] = PARTS,
    seeds: Sequence[int] | None = None,
) -> list[dict[str, object]]:
    """How much of each part a table holds: one line per part, with its cells and its people.

    A cell of two parts counts in both. A person counts if every cell of the part is there.
    """
    done = {tuple(row[name] for name in KEYS) for row in rows}
    lines = []
    for part in parts:
        cells = cells_of(part, people, seeds)
        incomplete = {cell.identity for cell in cells if cell not in done}
        complete = len(set(people) - incomplete)
        line = {"part": part, "cells": len(cells), "finished": len(done.intersection(cells))}
        lines.append(line | {"people planned": len(people), "people with all": complete})
    return lines
