"""Sweep what the papers leave open, for every protection with equal effort, on people whom no table reports.

    python -m tools.study.sweep run             # data/results/sweep.jsonl, resumable; hours on two cores
    python -m tools.study.sweep table           # what was found, best first

Every protection gets the same number of settings and of model calls. First come four step rules: momentum 0
or 0.9, with one draw of noise per step or with four. Four draws have a quarter of the steps, which are four
times as long. Then, with the best rule, three values of the protection's own arguments. The best setting has
the largest distance between the latents of Pure(x+δ) and Pure(x), in units of the latents' spread. So a
latent model sees most of it after purification. The rows also hold the figures of pixels and of the judge.
The tuning people have seeds from 8500.
"""

import json
import time
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path

import torch

from antipure_lib import Judge, dreambooth, gridpure, load_ddpm, load_stable_diffusion
from antipure_lib.customization.latent_diffusion import latents
from antipure_lib.protections.registry import PROTECTIONS, protect
from tools.study.lines import append, read, run_or_table
from tools.study.tuning import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/sweep.jsonl"
PEOPLE, PHOTOS = (8500, 8501, 8502), 1
ITERATIONS = 10  # of GrIDPure
ETA, STEPS = 16 / 255, 40
AVERAGED = dict(noise_samples=4, step_size=4 / 255)  # with a quarter of the steps
RULES = [dict(momentum=m) | more for m in (0.0, 0.9) for more in ({}, AVERAGED)]
OWN = {
    "advdm": [dict(step_size=0.5 / 255), dict(step_size=2 / 255), dict(random_start=True)],
    "photoguard": [dict(step_size=0.5 / 255), dict(step_size=2 / 255), dict(random_start=True)],
    "mist": [dict(weight=0.1), dict(weight=3.0), dict(step_size=2 / 255)],
    "fsmg": [dict(step_size=0.5 / 255), dict(step_size=2 / 255), dict(surrogate_steps=100)],
    "aspl": [dict(step_size=0.5 / 255), dict(step_size=2 / 255), dict(surrogate_steps=6)],
    "simac": [dict(step_size=2 / 255), dict(interference=10.0), dict(interference=100.0)],
    "pixel-ddpm": [dict(t_max=100), dict(t_max=1000), dict(step_size=2 / 255)],
    "pfg": [dict(patch=16), dict(patch=4), dict(absolute=True)],
    "etg": [dict(t_err=100), dict(t_err=900), dict(step_size=2 / 255)],
    "antipure": [dict(balance="sum"), dict(t_err=900), dict(weights=(0.1, 0.5, 0.5))],
    "end-to-end": [dict(iterations=4), dict(stride=2), dict(step_size=2 / 255)],
}


def arguments(name: str) -> Mapping[str, Parameter]:
    """The arguments that a protection names."""
    return signature(PROTECTIONS[name].steps).parameters


def rules(name: str) -> list[dict]:
    """The step rules of a protection. If it has no noise to average, step sizes take its place."""
    if "noise_samples" not in arguments(name):
        return [dict(momentum=m, step_size=s / 255) for m in (0.0, 0.9) for s in (1, 1.5)]
    return RULES


def measure(name: str, options: dict, world: dict, eta: float, steps: int) -> dict:
    """Figures of one setting, means over the tuning photos."""
    began = time.time()
    models = dict(ddpm=world["ddpm"], pipe=world["pipe"])
    steps = steps // options.get("noise_samples", 1)
    protected = []
    for person, (x, set_a) in enumerate(zip(world["x"].split(PHOTOS), world["set_a"], strict=True)):
        given = models | dict(set_a=set_a, eta=eta, steps=steps, seed=0) | options
        if "surrogate" in arguments(name):
            default = arguments(name)["surrogate_steps"].default
            given["surrogate"] = surrogate(world, person, options.get("surrogate_steps", default))
        protected.append(protect(name, x, **given))
    seconds = time.time() - began
    return effect(torch.cat(protected), world) | dict(seconds=seconds)


def surrogate(world: dict, person: int, steps: int):
    """DreamBooth of a tuning person's set A, trained once: most settings differ in the attack alone."""
    known = world.setdefault("surrogates", {})
    if (person, steps) not in known:
        known[person, steps] = dreambooth(world["pipe"], world["set_a"][person], steps=steps, seed=0)
    return known[person, steps]


def effect(protected: torch.Tensor, world: dict) -> dict:
    """What is seen of the tuning photos' perturbation before and after purification."""
    x, judge, pipe = world["x"], world["judge"], world["pipe"]
    purified = gridpure(world["ddpm"], protected, iterations=ITERATIONS)
    faces, clean = judge.embed(purified), judge.embed(world["purified"])
    z, z_clean = latents(pipe, purified, 8)[0], latents(pipe, world["purified"], 8)[0]
    pairs = ((protected, x), (purified, world["purified"]))
    delta, left = ((a - b).flatten(1).norm(dim=1) for a, b in pairs)
    return dict(
        latent_after=float((z - z_clean).square().mean().sqrt() / z_clean.std()),
        psnr_in=float(judge.psnr(x, protected).mean()),
        lpips_in=float(judge.lpips(x, protected).mean()),
        psnr_after=float(judge.psnr(world["purified"], purified).mean()),
        survival=float((left / delta).mean()),
        identity_after=float((faces - clean).norm(dim=1).nanmean()),
    )


def make_world() -> dict:
    """Models, and of each tuning person four photos for set A and `PHOTOS` others."""
    shown = [rendered(seed, 4 + PHOTOS) for seed in PEOPLE]
    ddpm, x = load_ddpm(), torch.cat([photos[4:] for photos in shown])
    set_a = [photos[:4] for photos in shown]
    world = dict(ddpm=ddpm, pipe=load_stable_diffusion(), judge=Judge(), x=x, set_a=set_a)
    return world | dict(purified=gridpure(ddpm, x, iterations=ITERATIONS))


def run(out: Path, names: list[str]) -> None:
    """Measure what `out` doesn't hold yet, one line per setting."""
    done = {(row["protection"], json.dumps(row["options"])): row for row in read(out, "protection")}
    world = make_world()

    def figures(name: str, options: dict) -> dict:
        key = (name, json.dumps(options))
        if key not in done:
            found = measure(name, options, world, ETA, STEPS)
            done[key] = dict(protection=name, options=options, eta=ETA, steps=STEPS, **found)
            append(out, done[key], show=True)
        return done[key]

    figures("random", {})
    for name in names:
        best = max(rules(name), key=lambda rule: figures(name, rule)["latent_after"])
        for own in OWN[name]:
            figures(name, best | own)


def table(path: Path) -> None:
    """Every protection's settings, best first."""
    columns = ("latent_after", "identity_after", "psnr_after", "psnr_in", "lpips_in", "survival")
    rows = sorted(read(path, "protection"), key=lambda row: (row["protection"], -row["latent_after"]))
    print_rows(rows, ("protection",), columns)


def print_rows(rows: list[dict], names: Sequence[str], columns: Sequence[str]) -> None:
    """One line per row: what names it, its figures, its options."""
    print(*(f"{name:12}" for name in names), *(f"{name:>14}" for name in columns), " options")
    for row in rows:
        named = (f"{row[name]!s:12}" for name in names)
        print(*named, *(f"{row[name]:14.3f}" for name in columns), "", json.dumps(row["options"]))


if __name__ == "__main__":
    parser = run_or_table(__doc__, OUT)
    parser.add_argument("--protect", nargs="+", choices=list(OWN), default=list(OWN))
    given = parser.parse_args()
    run(given.out, given.protect) if given.what == "run" else table(given.out)
