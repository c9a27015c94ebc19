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

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional as F

from antipure_lib import (
    Judge,
    gaussian_blur,
    gridpure,
    load_ddpm,
    load_stable_diffusion,
    lora,
    pgd,
    protect,
    purify,
)
from antipure_lib.core.antipure import antipure_loss
from antipure_lib.core.diffusion import add_noise, alpha_bars
from antipure_lib.core.images import quantise_within
from antipure_lib.customization.latent_diffusion import (
    PROMPT,
    denoising_term,
    latents,
    posterior,
    sample_latents,
    text_embeddings,
)
from antipure_lib.protections.workflow import MIXED, short_purifiers, workflow_loss
from antipure_lib.runtime.noise import randint, randn
from antipure_lib.runtime.unet import pipe_view
from tools.study.lines import append, read
from tools.study.nano import score, spread
from tools.study.tuning import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/workflow.jsonl"
PEOPLE = tuple(range(8500, 8508))
ETA = 16 / 255
BASE = dict(steps=12, step_size=4 / 255, t=10, stride=5, iterations=4, gamma=0.1)
VARIANTS = {
    "base": {},
    "pixels": dict(see="pixels"),
    "latents per channel": dict(see="per channel"),
    "middle of the UNet": dict(see="middle"),
    "latents and middle": dict(see="both"),
    "denoising loss": dict(see="denoising"),
    "1 iteration": dict(iterations=1),
    "2 iterations": dict(iterations=2),
    "8 iterations": dict(iterations=8),
    "stride 10": dict(stride=10),
    "stride 2": dict(stride=2),
    "identity backward": dict(backward="identity"),
    "1 draw": dict(draws=1),
    "4 draws": dict(draws=4),
    "4 draws averaged": dict(averaged=4, steps=4, step_size=8 / 255),
    "25 steps of 2/255": dict(steps=25, step_size=2 / 255),
    "6 steps of 8/255": dict(steps=6, step_size=8 / 255),
    "from AntiPure": dict(start="antipure"),
    "low-passed": dict(shape="blur"),
    "half resolution": dict(shape="half"),
    "mixed purifiers": dict(purifiers=MIXED),
    "with AntiPure's guidances": dict(guidances=True),
    "η 8/255": dict(eta=8 / 255, step_size=2 / 255),
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
RIVALS = {"random": {}, "antipure": dict(momentum=0.9), "advdm": dict(momentum=0.9)}


def seen_by(pipe, x: torch.Tensor, what: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the learner sees of images: N×3×H×W → N×…, in units of the clean photo's own spread."""

    def encode(y):
        return posterior(pipe, y)[0]

    with torch.no_grad():
        spread = encode(x).std((2, 3), keepdim=True)
    embedding = text_embeddings(pipe, [PROMPT])

    def middle(y):
        """The UNet's middle block at t = 100, always the same noise."""
        z0, found = encode(y), []
        t = torch.full((len(y),), 100, device=y.device)
        eps = randn(z0.shape, torch.Generator().manual_seed(0), y.device)
        handle = pipe.unet.mid_block.register_forward_hook(lambda *call: found.append(call[-1]))
        try:
            z_t = add_noise(z0, eps, t, alpha_bars(pipe.scheduler, y.device))
            pipe.unet(z_t, t, embedding().expand(len(y), -1, -1))
        finally:
            handle.remove()
        return found[0]

    def both(y):
        parts = [part.flatten(1) for part in (encode(y), middle(y))]
        return torch.cat([part / part.shape[1] ** 0.5 for part in parts], 1)

    return {
        "latents": encode,
        "pixels": lambda y: y,
        "per channel": lambda y: encode(y) / spread,
        "middle": middle,
        "both": both,
    }[what]


def with_backward(purify: Callable, kind: str) -> Callable:
    """The same purifier with its own backward pass, or with the identity in its place."""

    def identity(x, seed):
        with torch.no_grad():
            purified = purify(x, seed)
        return x + (purified - x).detach()

    return {"exact": purify, "identity": identity}[kind]


def attack(x: torch.Tensor, world: dict, variant: dict) -> torch.Tensor:
    """One photo, protected by a variant of the workflow attack, as an 8-bit file."""
    options = BASE | dict(eta=ETA) | variant
    loss = shaped(averaged(loss_of(x, world, options), options.get("averaged", 1)), x, options.get("shape"))
    how = dict(momentum=0.9, random_start="start" not in options)
    if "start" in options:
        begin = dict(steps=20, step_size=2 / 255)
        how["start"] = protect(options["start"], x, ddpm=world["ddpm"], pipe=world["pipe"], **begin)
    if options.get("guidances"):
        loss = both_of(loss, antipure_loss(world["ddpm"], tuple(x.shape[-2:]), ("pfg", "etg")))
        how |= dict(balance="equal", weights=dict(loss=1.0, pfg=0.25, etg=0.25))
    *_, last = pgd(loss, x, options["eta"], options["steps"], options["step_size"], 0, **how)
    return quantise_within(x + SHAPES[options.get("shape")](last.x_adv - x), x, options["eta"])


def loss_of(x: torch.Tensor, world: dict, options: dict) -> Callable:
    """The loss of a variant, for `pgd`."""
    pipe, chain = world["view"], {key: options[key] for key in ("t", "stride", "iterations", "gamma")}
    purifiers = short_purifiers(world["ddpm"], **chain, checkpointing=False)
    names, backward = options.get("purifiers", ["gridpure"]), options.get("backward", "exact")
    chosen = [with_backward(purifiers[name], backward) for name in names]
    if options.get("see") != "denoising":
        return workflow_loss(chosen, seen_by(pipe, x, options.get("see", "latents")), x, options.get("draws"))
    embedding = text_embeddings(pipe, [PROMPT])

    def loss(x_adv, generator):
        (seed,) = randint(0, 2**31, (1,), generator).tolist()
        z0 = sample_latents(pipe, chosen[0](x_adv, seed), generator)
        return denoising_term(pipe, z0, embedding(), generator)

    return loss


def both_of(ours: Callable, theirs: Callable) -> Callable:
    """A loss with AntiPure's terms next to ours."""
    return lambda x_adv, generator: {"loss": ours(x_adv, generator)} | theirs(x_adv, generator)


SHAPES = {
    None: lambda delta: delta,
    "blur": lambda delta: 2 * gaussian_blur(delta / 2 + 0.5, 1.0) - 1,
    "half": lambda delta: F.interpolate(F.avg_pool2d(delta, 2), scale_factor=2.0, mode="bilinear"),
}


def shaped(loss: Callable, x: torch.Tensor, shape: str | None) -> Callable:
    """The loss of the photo with the shaped δ."""
    return lambda x_adv, generator: loss((x + SHAPES[shape](x_adv - x)).clamp(0, 1), generator)


def averaged(loss: Callable, count: int) -> Callable:
    """The mean of the loss over `count` draws."""
    return lambda x_adv, generator: sum(loss(x_adv, generator) for _ in range(count)) / count


def measure(person: int, name: str, world: dict) -> dict:
    """Figures of one variant, or rival, on one photo."""
    x = rendered(person)[4:5]
    if person not in world["clean"]:
        world["clean"][person] = gridpure(world["ddpm"], x, iterations=20, seed=77)
    clean, began = world["clean"][person], time.process_time()
    if name in RIVALS:
        options = {} if name == "random" else dict(steps=40) | RIVALS[name]
        protected = protect(name, x, ddpm=world["ddpm"], pipe=world["pipe"], eta=ETA, **options)
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
    for name in names:
        for person in people:
            if (name, person) not in done:
                row = dict(variant=name, person=person) | measure(person, name, world)
                append(out, row)
                print(json.dumps(row, ensure_ascii=False), flush=True)


def table(path: Path) -> None:
    """Means over the people, the strongest in latents first, with the standard deviation."""
    rows, columns = read(path, "variant"), ("latent_after", "identity_after", "survival", "lpips", "seconds")
    print(f"{'variant':26}{'people':>7}", *(f"{name:>16}" for name in columns))
    of = {name: [row for row in rows if row["variant"] == name] for name in {row["variant"] for row in rows}}
    for name, own in sorted(of.items(), key=lambda pair: -fmean(r["latent_after"] for r in pair[1])):
        cells = [spread([row[column] for row in own]) for column in columns]
        print(f"{name:26}{len(own):7}", *(f"{cell['mean']:9.3f} ± {cell['sd']:.3f}" for cell in cells))


def learn(out: Path, people: list[int], names: list[str]) -> None:
    """What LoRA learns from the purified photos of tuning people, one row per protection and purifier."""
    done = {(row["protection"], row["purifier"], row["person"]) for row in read(out, "protection")}
    ddpm, pipe, judge = load_ddpm(), load_stable_diffusion(), Judge()
    for person in people:
        photos = rendered(person)
        x, models = photos[4:8], dict(ddpm=ddpm, pipe=pipe, set_a=photos[:4])
        for name in names:
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
                row["lpips"] = float(judge.lpips(x, protected).mean())
                append(out, row)
                print(json.dumps(row), flush=True)


def learned(path: Path) -> None:
    """Mean pass rate, distance and LPIPS over the people, with the standard deviation."""
    rows, columns = read(path, "protection"), ("same_person", "distance", "lpips", "seconds")
    print(f"{'purifier':20}{'protection':24}{'people':>7}", *(f"{name:>16}" for name in columns))
    for key in sorted({(row["purifier"], row["protection"]) for row in rows}):
        own = [row for row in rows if (row["purifier"], row["protection"]) == key]
        cells = [spread([row[column] for row in own]) for column in columns]
        print(
            f"{key[0]:20}{key[1]:24}{len(own):7}",
            *(f"{cell['mean']:9.3f} ± {cell['sd']:.3f}" for cell in cells),
        )


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "learn", "learned"))
    parser.add_argument("--out", type=Path, help="default: see above")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE[:2])
    parser.add_argument("--names", nargs="+", help="variants or protections; default: all")
    given = parser.parse_args()
    out = given.out or OUT.with_stem("workflow_learned" if "learn" in given.what else "workflow")
    if given.what in ("table", "learned"):
        (table if given.what == "table" else learned)(out)
    elif given.what == "run":
        run(out, given.people, given.names or [*RIVALS, *VARIANTS])
    else:
        learn(out, given.people, given.names or [*LEARNED])
