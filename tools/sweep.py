"""Sweep what the papers leave open, for every protection with equal effort, on people whom no table reports.

    python tools/sweep.py run             # data/results/sweep.jsonl, resumable; hours on two cores
    python tools/sweep.py table           # what was found, best first

Every protection gets the same number of settings and of model calls: the step rules (momentum 0 or 0.9; every
step with one draw of noise, or a quarter of the steps, four times as long, with four), then, with the better
rule, three values of what is its own. What counts is what a latent model sees of
the perturbation after purification: the distance of the latents of Pure(x+δ) and Pure(x), in units of the
latents' spread. Pixels and the judge's view are recorded too. The tuning people have seeds from 8500.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tools.faces.render import photos_of

from antipure_lib import Judge, gridpure, load_ddpm, load_stable_diffusion, surrogate_attacks
from antipure_lib.digests import digest
from antipure_lib.fine_tune import latents
from antipure_lib.protect import protect

OUT = Path(__file__).resolve().parents[1] / "data/results/sweep.jsonl"
PEOPLE, PHOTOS = (8500, 8501, 8502), 1
ITERATIONS = 10  # of GrIDPure
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
WITHOUT_NOISE = ("photoguard", "simac", "random")  # they have no argument noise_samples


def rules(name: str) -> list[dict]:
    """The step rules of a protection; where there is no noise to average, step sizes take its place."""
    if name in WITHOUT_NOISE:
        return [dict(momentum=m, step_size=s / 255) for m in (0.0, 0.9) for s in (1, 1.5)]
    return RULES


def measure(name: str, options: dict, world: dict, eta: float, steps: int) -> dict:
    """Figures of one setting, means over the tuning photos."""
    x = world["x"]
    began = time.time()
    models = dict(ddpm=world["ddpm"], pipe=world["pipe"])
    own = zip(x.split(PHOTOS), world["set_a"], strict=True)
    steps = steps // options.get("noise_samples", 1)
    protected = torch.cat(
        [protect(name, b, set_a=a, eta=eta, steps=steps, seed=0, **models, **options) for b, a in own]
    )
    seconds = time.time() - began
    return effect(protected, world) | dict(seconds=seconds)


def effect(protected: torch.Tensor, world: dict) -> dict:
    """What is seen of the tuning photos' perturbation before and after purification."""
    x, judge, pipe = world["x"], world["judge"], world["pipe"]
    purified = gridpure(world["ddpm"], protected, iterations=ITERATIONS)
    faces, clean = judge.embed(purified), judge.embed(world["purified"])
    z, z_clean = latents(pipe, purified, 8)[0], latents(pipe, world["purified"], 8)[0]
    delta, left = (
        (protected - x).flatten(1).norm(dim=1),
        (purified - world["purified"]).flatten(1).norm(dim=1),
    )
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
    shown = [torch.from_numpy(photos_of(seed, 4 + PHOTOS, 64)[0]) for seed in PEOPLE]
    shown = [photos.permute(0, 3, 1, 2).float() / 255 for photos in shown]
    ddpm, x = load_ddpm(), torch.cat([photos[4:] for photos in shown])
    set_a = [photos[:4] for photos in shown]
    world = dict(ddpm=ddpm, pipe=load_stable_diffusion(), judge=Judge(), x=x, set_a=set_a)
    return world | dict(purified=gridpure(ddpm, x, iterations=ITERATIONS))


def trained_once(learn: Callable) -> Callable:
    """`dreambooth`, which gives equal arguments the model of the first call: same seed, same bits.

    FSMG's settings differ in the attack, and its surrogate takes ten times as long to train.
    """
    models = {}

    def learned(pipe, images, **options):
        key = digest(images, {name: repr(value) for name, value in options.items()})
        if key not in models:
            models[key] = learn(pipe, images, **options)
        return models[key]

    return learned


def run(out: Path, names: list[str], eta: float, steps: int) -> None:
    """Measure what `out` doesn't hold yet, a line a setting."""
    surrogate_attacks.dreambooth = trained_once(surrogate_attacks.dreambooth)
    done = {(row["protection"], json.dumps(row["options"])): row for row in read(out)}
    world = make_world()

    def figures(name: str, options: dict) -> dict:
        key = (name, json.dumps(options))
        if key not in done:
            found = measure(name, options, world, eta, steps)
            done[key] = dict(protection=name, options=options, eta=eta, steps=steps, **found)
            append(out, done[key])
            print(json.dumps(done[key]), flush=True)
        return done[key]

    figures("random", {})
    for name in names:
        best = max(rules(name), key=lambda rule: figures(name, rule)["latent_after"])
        for own in OWN[name]:
            figures(name, best | own)


def read(path: Path) -> list[dict]:
    """The rows so far; a last line cut off by a crash is dropped from the file."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def append(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def table(path: Path) -> None:
    """Every protection's settings, best first."""
    columns = ("latent_after", "identity_after", "psnr_after", "psnr_in", "lpips_in", "survival")
    rows = sorted(read(path), key=lambda row: (row["protection"], -row["latent_after"]))
    print_rows(rows, ("protection",), columns)


def print_rows(rows: list[dict], names: Sequence[str], columns: Sequence[str]) -> None:
    """A line a row: what names it, its figures, its options."""
    print(*(f"{name:12}" for name in names), *(f"{name:>14}" for name in columns), " options")
    for row in rows:
        named = (f"{row[name]!s:12}" for name in names)
        print(*named, *(f"{row[name]:14.3f}" for name in columns), "", json.dumps(row["options"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    parser.add_argument("--protect", nargs="+", choices=list(OWN), default=list(OWN))
    parser.add_argument("--eta", type=float, default=16, help="budget in steps of 1/255")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    if given.what == "run":
        run(given.out, given.protect, given.eta / 255, given.steps)
    else:
        table(given.out)
