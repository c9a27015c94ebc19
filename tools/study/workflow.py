"""The workflow attack on people whom no table reports: which parts of it matter, and what is learned.

    python -m tools.study.workflow run      # data/results/workflow.jsonl; two core minutes per row
    python -m tools.study.workflow table    # means over the people, the strongest first
    python -m tools.study.workflow learn    # data/results/workflow_learned.jsonl; ten core minutes per row
    python -m tools.study.workflow learned  # pass rates by protection and purifier

`run` and `learn` are resumable. `run` protects one photo of a tuning person and purifies it with GrIDPure. It
measures how far the result is from the purified clean photo: to a latent model (`latent_after`) and to dlib
(`identity_after`). All variants differ from BASE in the one thing that their name says. `learn` protects a
person's four photos, purifies them, trains a LoRA and counts the generated images that dlib accepts as the
person.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch

from antipure_lib import Judge, gridpure, load_ddpm, load_stable_diffusion, lora, pgd, protect, purify
from antipure_lib.core.images import quantise_within
from antipure_lib.customization.latent_diffusion import latents, posterior
from antipure_lib.protections.workflow import MIXED, short_purifiers, workflow_loss
from antipure_lib.runtime.unet import pipe_view
from tools import command_line
from tools.study.lines import append, read
from tools.study.nano import score, spread
from tools.study.tuning import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/workflow.jsonl"
PEOPLE = tuple(range(8500, 8508))
ETA = 16 / 255
BASE = dict(eta=ETA, steps=12, step_size=4 / 255, t=10, stride=5, iterations=4, gamma=0.1)
VARIANTS = {
    "base": {},
    "pixels": dict(see="pixels"),
    "1 iteration": dict(iterations=1),
    "2 iterations": dict(iterations=2),
    "8 iterations": dict(iterations=8),
    "stride 10": dict(stride=10),
    "stride 2": dict(stride=2),
    "identity backward": dict(backward="identity"),
    "1 draw": dict(draws=1),
    "4 draws": dict(draws=4),
    "25 steps of 2/255": dict(steps=25, step_size=2 / 255),
    "6 steps of 8/255": dict(steps=6, step_size=8 / 255),
    "mixed purifiers": dict(purifiers=MIXED),
    "η 8/255": dict(eta=8 / 255, step_size=2 / 255),
}
RIVALS = {
    "random": {},
    "antipure": dict(steps=40, momentum=0.9),
    "advdm": dict(steps=40, momentum=0.9),
}
LONG = dict(steps=12, step_size=4 / 255, momentum=0.9)
LEARNED = {
    "clean": ("none", {}),
    "random": ("random", {}),
    "antipure": ("antipure", LONG),
    "advdm": ("advdm", dict(steps=50, momentum=0.9)),
    "simac": ("simac", dict(steps=50, momentum=0.9, interference=10.0)),
    "workflow": ("workflow", LONG),
    "workflow 8/255": ("workflow", LONG | dict(eta=8 / 255, step_size=2 / 255)),
    "workflow mixed": ("workflow", LONG | dict(purifiers=MIXED)),
}
PURIFIERS = {
    "none": (),
    "gridpure2x20": ("gridpure2x20",),
    "diffpure100": ("diffpure100",),
    "jpeg75, half size": ("jpeg75", "resize"),
    "waifu2x": ("waifu2x",),
}


def with_identity_backward(purify: Callable) -> Callable:
    """The same purifier, with the identity in place of its own backward pass."""

    def identity(x, seed):
        with torch.no_grad():
            purified = purify(x, seed)
        return x + (purified - x).detach()

    return identity


def attack(x: torch.Tensor, world: dict, variant: dict) -> torch.Tensor:
    """One photo, protected by a variant of the workflow attack, as an 8-bit file."""
    options = BASE | variant
    chain = {key: options[key] for key in ("t", "stride", "iterations", "gamma")}
    known = short_purifiers(world["ddpm"], **chain, checkpointing=False)
    purifiers = [known[name] for name in options.get("purifiers", ["gridpure"])]
    if options.get("backward") == "identity":
        purifiers = [with_identity_backward(purifier) for purifier in purifiers]
    pixels = options.get("see") == "pixels"
    see = (lambda y: y) if pixels else (lambda y: posterior(world["view"], y)[0])
    loss = workflow_loss(purifiers, see, x, options.get("draws"))
    how = dict(momentum=0.9, random_start=True)
    *_, last = pgd(loss, x, options["eta"], options["steps"], options["step_size"], 0, **how)
    return quantise_within(last.x_adv, x, options["eta"])


def measure(person: int, name: str, world: dict) -> dict:
    """Figures of one variant, or rival, on one photo."""
    x = rendered(person)[4:5]
    if person not in world["clean"]:
        world["clean"][person] = gridpure(world["ddpm"], x, iterations=20, seed=77)
    clean, began = world["clean"][person], time.process_time()
    if name in RIVALS:
        protected = protect(name, x, ddpm=world["ddpm"], pipe=world["pipe"], eta=ETA, **RIVALS[name])
    else:
        protected = attack(x, world, VARIANTS[name])
    seconds = time.process_time() - began
    purified = gridpure(world["ddpm"], protected, iterations=20, seed=77)
    judge, pipe = world["judge"], world["pipe"]
    z, z_clean = latents(pipe, purified, 8)[0], latents(pipe, clean, 8)[0]
    left, delta = (purified - clean).norm(), (protected - x).norm()
    return dict(
        latent_after=float((z - z_clean).square().mean().sqrt() / z_clean.std()),
        identity_after=float((judge.embed(purified) - judge.embed(clean)).norm(dim=1).nanmean()),
        survival=float(left / delta),
        lpips=float(judge.lpips(x, protected).mean()),
        seconds=round(seconds, 1),
    )


def run(out: Path, people: list[int], names: list[str]) -> None:
    """Measure what `out` lacks, one row per variant and person."""
    done = {(row["variant"], row["person"]) for row in read(out, "variant")}
    pipe = load_stable_diffusion()
    world = dict(ddpm=load_ddpm(), pipe=pipe, view=pipe_view(pipe), judge=Judge(), clean={})
    for name in names or [*RIVALS, *VARIANTS]:
        for person in people:
            if (name, person) not in done:
                append(out, dict(variant=name, person=person) | measure(person, name, world), show=True)


def learn(out: Path, people: list[int], names: list[str]) -> None:
    """What LoRA learns from the purified photos of tuning people, one row per protection and purifier."""
    done = {(row["protection"], row["purifier"], row["person"]) for row in read(out, "protection")}
    ddpm, pipe, judge = load_ddpm(), load_stable_diffusion(), Judge()
    for person in people:
        photos = rendered(person)
        x, models = photos[4:8], dict(ddpm=ddpm, pipe=pipe, set_a=photos[:4])
        for name in names or LEARNED:
            missing = [kind for kind in PURIFIERS if (name, kind, person) not in done]
            if not missing:
                continue
            began = time.process_time()
            protected = protect(LEARNED[name][0], x, **models, **LEARNED[name][1])
            seconds = time.process_time() - began
            for kind in missing:
                purified = protected
                for step in PURIFIERS[kind]:
                    purified = purify(step, purified, ddpm=ddpm, seed=77)
                figures = score(judge, lora(pipe, purified, seed=0), judge.embed(photos[8:]))
                row = dict(protection=name, purifier=kind, person=person, seconds=round(seconds, 1)) | figures
                append(out, row | dict(lpips=float(judge.lpips(x, protected).mean())), show=True)


def table(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Means over the people with the standard deviation, the largest first column first.

    names: the columns that name a row. With several, rows of one first name stand together.
    """
    groups = {}
    for row in read(path, names[-1]):
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    print(*(f"{name:24}" for name in names), f"{'people':>7}", *(f"{name:>16}" for name in columns))
    largest = {key: -fmean(row[columns[0]] for row in own) for key, own in groups.items()}
    for key in sorted(groups, key=lambda key: (key[:-1], largest[key])):
        cells = [spread([row[column] for row in groups[key]]) for column in columns]
        figures = (f"{cell['mean']:9.3f} ± {cell['sd']:.3f}" for cell in cells)
        print(*(f"{name:24}" for name in key), f"{len(groups[key]):7}", *figures)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("run", "table", "learn", "learned"))
    parser.add_argument("--out", type=Path, help="default: see above")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE[:2])
    parser.add_argument("--names", nargs="+", help="variants or protections; default: all")
    given = parser.parse_args()
    out = given.out or OUT.with_stem("workflow_learned" if "learn" in given.what else "workflow")
    if given.what == "table":
        table(out, ("variant",), ("latent_after", "identity_after", "survival", "lpips", "seconds"))
    elif given.what == "learned":
        table(out, ("purifier", "protection"), ("same_person", "distance", "lpips", "seconds"))
    else:
        (run if given.what == "run" else learn)(out, given.people, given.names)
